"""Whether a module is still the one that something was made from: its parts by identity, its weights by their counters.

Legend: a tensor's version is PyTorch's counter of writes to it.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from fastbert.ops.checks import PLAIN
from fastbert.system import native

_SAMPLES = 16  # elements compared of each weight: every one is a read from memory


class Snapshot:
    """What decides how a module and those inside it compute.

    Classes, attributes, parameters, children and hooks are compared by identity, so a value that is replaced by an
    equal one counts as a change. Weights are compared by address, strides and version; writes that PyTorch does not
    count (``.data``, numpy, other libraries' kernels) are seen by some elements of each weight on the CPU. One call
    takes some microseconds for each layer.

    Raises:
        RuntimeError: the C++ core is unavailable.
    """

    def __init__(self, root: nn.Module):
        modules = []
        for module in root.modules():
            values = vars(module)
            inside = (v for name, v in values.items() if name.endswith(("_hooks", "_parameters", "_modules")))
            modules.append((module, values, *(v for v in inside if isinstance(v, dict))))
        tensors = [p for p in root.parameters() if type(p) in PLAIN and p.layout is torch.strided]
        self._core = native.compute().Snapshot(modules, tensors, [pair for p in tensors for pair in _samples(p)])

    def is_current(self) -> bool:
        """Whether nothing has changed; false while a hook is registered for all modules."""
        return not torch_module._has_any_global_hook() and self._core.is_current()


def _samples(tensor: Tensor) -> list[tuple[int, int]]:
    """(address, bytes) of some elements."""
    if tensor.device.type != "cpu" or not tensor.numel():
        return []
    index = np.arange(0, tensor.numel(), max(tensor.numel() // _SAMPLES, 1))[:_SAMPLES]
    position = np.unravel_index(index, tensor.shape)
    offsets = sum((at * stride for at, stride in zip(position, tensor.stride(), strict=True)), 0 * index)
    size = tensor.element_size()
    return [(tensor.data_ptr() + int(offset) * size, size) for offset in offsets]
