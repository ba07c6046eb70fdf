"""The GPUs of this machine."""

from __future__ import annotations

import subprocess

from node_fakes import PATIENCE


def gpus() -> int:
    """Return how many GPUs CUDA finds, in a process that is told of all."""
    code = (
        "import ctypes; cuda = ctypes.CDLL('libcuda.so.1'); n = ctypes.c_int();"
        "assert cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(n)) == 0; print(n.value)"
    )
    found = subprocess.run(
        ["python3", "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return int(found.stdout) if found.returncode == 0 else 0
