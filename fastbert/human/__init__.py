"""Rating by people: a blind sheet made from several systems' texts, and what the ratings say.

``python -m fastbert.evaluate human make`` writes the sheet (:mod:`fastbert.human.sheet`), ``… human score`` reads the
answers (:mod:`fastbert.human.answers`) and compares the systems (:mod:`fastbert.human.ratings`).
"""

from fastbert.human.answers import Rating, read_answers, read_key
from fastbert.human.ratings import Summary, summarize
from fastbert.human.sheet import CRITERIA, Sheet, make_sheet

__all__ = ["CRITERIA", "Rating", "Sheet", "Summary", "make_sheet", "read_answers", "read_key", "summarize"]
