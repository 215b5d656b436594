"""A GPU that computes nothing: real ``cuda:0`` tensors, PyTorch's own dispatcher, autograd and autocast, Triton's own
launcher down to the driver's call, which is counted.

Unlike the pretended GPU next door nothing of it is written in Python, so that the host's time is what a GPU would see,
but for the work inside cuBLAS, the caching allocator and the driver.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

from pretended import guard

HERE = Path(__file__).parent


def start() -> ctypes.CDLL:
    """Turn this process into one with such a GPU; returns the driver. torch and triton must not be imported yet."""
    assert not {"torch", "triton"} & set(sys.modules), "the GPU must come before torch and triton"
    driver = _driver()
    os.environ["TRITON_LIBCUDA_PATH"] = str(driver.parent)
    library = ctypes.CDLL(str(driver), mode=ctypes.RTLD_GLOBAL)
    library.recorded_launches.restype = ctypes.c_uint64
    guard.load(guard.build("silent_cuda", HERE / "device.cpp"))
    import torch

    properties = types.SimpleNamespace(major=9, minor=0, multi_processor_count=132, total_memory=140 << 30)
    cuda = torch.cuda
    for name, answer in {
        "is_available": lambda: True, "device_count": lambda: 1, "_initialized": True,
        "_get_device_properties": lambda device: properties, "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
    }.items():  # fmt: skip
        setattr(cuda, name, answer)
    for name, answer in {"_cuda_getDevice": lambda: 0, "_cuda_getCurrentRawStream": lambda device: 0}.items():
        setattr(torch._C, name, answer)
    return library


def _driver() -> Path:
    """libcuda.so.1, compiled by the headers that come with Triton."""
    import importlib.util

    found = importlib.util.find_spec("triton")
    assert found is not None and found.origin is not None
    headers = Path(found.origin).parent / "backends" / "nvidia" / "include"
    folder = Path(tempfile.mkdtemp(prefix="driver-"))
    made = folder / "libcuda.so.1"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-w", f"-I{headers}", str(HERE / "driver.c"), "-o", str(made)]
    subprocess.run([*command, "-Wl,-soname,libcuda.so.1"], check=True)
    (folder / "libcuda.so").symlink_to(made)
    return made
