"""``python -m fastbert.report RUN [RUN2 …]``."""

import sys

from fastbert.report.command import ReportOptions, main
from fastbert.system.cli import run

if __name__ == "__main__":
    sys.exit(run(main, ReportOptions))
