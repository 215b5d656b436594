"""The folder ``inside/`` is for the second process, which test_on_a_pretended_gpu.py starts."""

import sys

collect_ignore_glob = ["test_*.py"] if "pretended" in sys.modules else ["inside/*"]
