"""A pretended GPU on a machine without one: the whole of fastbert runs on it, watched.

``python -m pretended -m fastbert.train …`` runs a module, ``python -m pretended file.py …`` a script. See tensors.py
for what is refused and written down, kernels.py for how launches compute. Needs a CPU build of PyTorch and a compiler.
"""

import contextlib
import os
import sys
from pathlib import Path

_kept = contextlib.ExitStack()  # for the life of the process


def start() -> None:
    """Turn this process into one with a GPU. Neither torch nor triton may have been imported."""
    assert not {"torch", "triton"} & set(sys.modules), "the pretended GPU must come before torch and triton"
    os.environ["TRITON_INTERPRET"] = "1"
    from pretended import guard

    guard.load()
    from pretended import kernels, machine

    machine.install()
    sys.path.insert(0, str(Path(__file__).parents[2] / "kernels" / "interpreted"))
    import interpreter_bf16

    _kept.enter_context(interpreter_bf16.repaired())
    kernels.install()
    _pass_for_plain()


def _pass_for_plain() -> None:
    """Kernels refuse subclasses of Tensor and dispatch modes: these two stand for an ordinary program's tensors."""
    import torch
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    from fastbert.ops import checks
    from pretended.tensors import OnCuda, Pretending

    def others() -> int:
        return sum(not isinstance(mode, Pretending) for mode in _get_current_dispatch_mode_stack())

    stock = checks.transform_reason

    def transform_reason() -> str | None:
        real = torch._C._len_torch_dispatch_stack
        number = others()
        torch._C._len_torch_dispatch_stack = lambda: number
        try:
            return stock()
        finally:
            torch._C._len_torch_dispatch_stack = real

    checks.transform_reason = transform_reason
    checks.PLAIN += (OnCuda,)
