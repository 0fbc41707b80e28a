"""Memory of a process that serves: what was freed is used again."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from haven.apiserver import garbage

PROGRAM = """
import resource
from haven.apiserver import garbage

garbage.settle()
pieces = [b"x" * 4000] * 1000
for _ in range(5):
    b"".join(pieces)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"".join(pieces)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told what to keep")
def test_answers_of_megabytes_do_not_cost_new_pages_each() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 20 * 100  # A body of 4 MB has a thousand pages.


def test_the_collector_looks_seldom() -> None:
    before = gc.get_threshold()
    try:
        garbage.settle()
        assert gc.get_threshold() == garbage.COLLECT_AFTER
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
