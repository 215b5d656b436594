"""The parts of ``report.html``: what a run recorded, what its model shows, and how both are drawn.

:func:`build` puts them together; ``python -m fastbert.report`` is its command.
"""

from fastbert.reporting.build import build
from fastbert.reporting.runs import RunRecord, read_run

__all__ = ["RunRecord", "build", "read_run"]
