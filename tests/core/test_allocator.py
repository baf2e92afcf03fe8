"""Freed tensors stay with the process: the kernel clears their pages once, not at every step."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from samo.training.allocator import keep_freed_memory

ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
# 20 blocks of 64 MiB: 16,384 pages of 4 KiB each.
COUNT = """
import json, resource, sys
import numpy as np
from samo.training.allocator import keep_freed_memory
acts = keep_freed_memory() if sys.argv[1] == "keep" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 23)
print(json.dumps([acts, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def counted(how: str, **variables: str) -> tuple[bool | None, int]:
    """Whether it acts, and the pages the kernel gave for 20 arrays of 64 MiB one after another."""
    # Huge pages would hide how many small ones there are.
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **variables}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], env=environment, capture_output=True, text=True, check=True
    )
    acts, faults = json.loads(done.stdout)
    return acts, faults


@ON_GLIBC
def test_the_pages_of_freed_arrays_are_used_again() -> None:
    acts, kept = counted("keep")
    _, given_back = counted("leave")
    assert acts is True
    assert given_back > 10 * kept


@ON_GLIBC
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"])
def test_an_allocator_set_by_the_user_is_left_alone(name: str) -> None:
    value = "131072" if name.startswith("MALLOC") else "libm.so.6"
    assert counted("keep", **{name: value})[0] is False


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory.__wrapped__() is False
