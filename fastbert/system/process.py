"""Facts of this process: the package's version and when it started."""

import time

__version__ = "0.1.0"

# --minutes counts from here: the first moment of the package in a process
IMPORTED_AT_S = time.monotonic()
