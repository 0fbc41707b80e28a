"""Memory in a process that serves the API: Python's collector of reference cycles, and the C library's allocator.

Objects of the API hold no cycles and are not tracked at all; at Python's own threshold of 700 allocations the collector
would look at the rest again and again, for nothing. Lists are answered in blocks of megabytes: glibc gives these back
to the kernel one by one, which then has to clear a thousand pages for the next list, at several times the cost of
filling them. So some of what was freed is kept (mallopt(3)).
"""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["settle"]

COLLECT_AFTER = (20_000, 20, 50)
KEPT_BYTES = 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def settle() -> None:
    """Take what was made so far as lasting: it is not looked at again, and what comes is looked at seldom."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    _keep_freed_memory()


def _keep_freed_memory() -> bool:
    """Let the allocator keep blocks as large as answers; return whether it does."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # Another C library, such as musl.
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
