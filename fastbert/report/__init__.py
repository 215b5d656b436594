"""``report.html``: the records of runs, views of a model, and charts.

:func:`build` assembles them; :func:`main` is the command. Without a model nothing here needs torch.
"""

from fastbert.report.build import build
from fastbert.report.command import ReportOptions, main
from fastbert.report.runs import RunRecord, read_run

__all__ = ["ReportOptions", "RunRecord", "build", "main", "read_run"]
