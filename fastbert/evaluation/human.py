"""Human evaluation: a blind rating sheet for the texts of several systems, and the statistics of the ratings.

``python -m fastbert.evaluate human make`` writes the sheet (:mod:`fastbert.evaluation.human_sheet`), ``… human score``
reads the answers (:mod:`fastbert.evaluation.human_answers`) and compares the systems
(:mod:`fastbert.evaluation.human_ratings`).
"""

from fastbert.evaluation.human_answers import Rating, read_answers, read_key
from fastbert.evaluation.human_ratings import Summary, summarize
from fastbert.evaluation.human_sheet import CRITERIA, Sheet, make_sheet

__all__ = ["CRITERIA", "Rating", "Sheet", "Summary", "make_sheet", "read_answers", "read_key", "summarize"]
