"""A kernel launched again with arguments of the same kind, past Triton's binder.

``kernel[grid](…)`` asks of each of some forty arguments what it would be compiled for, and makes a text of the options
to look the compiled kernel up: some 25 µs on the host. Here the same question is one tuple, and a kernel that has been
compiled for it goes straight to Triton's launcher.
"""

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor
from triton import knobs
from triton.runtime import driver

_ALIGNMENT = 15  # Triton specialises on addresses that are multiples of 16


def _calls(hook: Any) -> bool:
    return hook is not None and bool(getattr(hook, "calls", True))


class Relauncher:
    """The compiled variants of one kernel.

    A variant is found by all that Triton compiles for: constants and specialised integers by value, pointers by dtype
    and alignment. Integers that are not specialised on, and floats, make none.

    Args:
        kernel: the ``triton.jit`` function.
        example: its arguments of one launch, which tell pointers, numbers and floats apart.
    """

    def __init__(self, kernel: Any, example: dict[str, Any]):
        pointers, deciding, free = [], [], []
        for parameter in kernel.params:
            value = example[parameter.name]
            if parameter.is_constexpr:
                deciding.append(parameter.name)
            elif value is None or isinstance(value, Tensor):
                pointers.append(parameter.name)
            elif isinstance(value, int):
                (free if parameter.do_not_specialize else deciding).append(parameter.name)
        self._values = operator.itemgetter(*(parameter.name for parameter in kernel.params))
        self._pointers = operator.itemgetter(*pointers)
        self._deciding = operator.itemgetter(*deciding)
        self._free = operator.itemgetter(*free, *free) if free else None  # twice: a tuple for a single one too
        self._compiled: dict[tuple, Any] = {}

    def launch(self, grid: int, device: int, arguments: dict[str, Any], options: tuple, run: Callable[[], Any]) -> Any:
        """Launch ``grid`` programs on the current device; returns what was compiled.

        Args:
            arguments: of the kernel, all by name, constants too.
            options: what else decides the variant (warps, stages).
            run: launches by Triton's own way and returns what was compiled: for arguments that are new.
        """
        if self._free is not None and max(self._free(arguments)) >= 2**31:  # Triton makes them 64 bits wide
            return run()
        pointers = [None if x is None else (x.dtype, x.data_ptr() & _ALIGNMENT) for x in self._pointers(arguments)]
        key = device, options, self._deciding(arguments), *pointers
        compiled = self._compiled.get(key)
        if compiled is None:
            self._compiled[key] = run()
            return self._compiled[key]
        before, after = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
        stream, values, metadata = driver.active.get_current_stream(device), self._values(arguments), None
        if _calls(before):
            metadata = compiled.launch_metadata((grid,), stream, *values)
        else:
            before = None
        after = after if _calls(after) else None
        compiled.run(grid, 1, 1, stream, compiled.function, compiled.packed_metadata, metadata, before, after, *values)
        return compiled
