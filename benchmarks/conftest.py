"""Puts benchmarks/ on the path: pytest's import mode "importlib" does not, and harness.py is there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
