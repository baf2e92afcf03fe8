"""Keeps glibc from handing every large tensor's pages back to the kernel, which clears them at the next step anew."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1
# Grown by so much at once: the heap of a training step is complete after few calls.
_PAD = 64 << 20
_OWN_CHOICE = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors, up to 2 GiB at the top of its heap.

    By default glibc maps every block above 32 MiB anew and unmaps it when freed; the kernel then clears its pages each
    time. Acts where the C library is glibc, and not where the environment sets the allocator or preloads another one.

    Returns:
        Whether it acts.

    Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _OWN_CHOICE):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    values = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: _PAD}
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in values.items())
