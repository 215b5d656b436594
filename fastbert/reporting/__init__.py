"""The parts of ``report.html``: the records of a run, views of its model, and charts.

:func:`build` assembles them; ``python -m fastbert.report`` is its command. Without a model nothing here needs torch.
"""

from fastbert.reporting.build import build
from fastbert.reporting.runs import RunRecord, read_run

__all__ = ["RunRecord", "build", "read_run"]
