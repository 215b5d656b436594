"""Triton fixes when a kernel is defined whether it is compiled or interpreted, so these tests need two processes.

In the ordinary process (TRITON_INTERPRET unset) the kernels are compiled ahead of time and their launches recorded;
``test_under_the_interpreter.py`` starts a second pytest with TRITON_INTERPRET=1 for the folder ``interpreted/``.
"""

import importlib.util
import os
import sys
from pathlib import Path

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

collect_ignore_glob = ["test_*.py"] if INTERPRETED else ["interpreted/*"]

# a planted error (test_mutations.py): take fastbert.kernels from a changed copy
if mutant := os.environ.get("FASTBERT_KERNELS_MUTANT"):
    import fastbert

    spec = importlib.util.spec_from_file_location(
        "fastbert.kernels", Path(mutant) / "__init__.py", submodule_search_locations=[mutant]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastbert.kernels"] = module
    fastbert.kernels = module
    spec.loader.exec_module(module)
