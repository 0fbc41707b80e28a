"""Python's collector of reference cycles, set for a process that serves the API.

Objects of the API hold no cycles and are not tracked at all; at Python's own threshold of 700 allocations the collector
would look at the rest again and again, for nothing.
"""

from __future__ import annotations

import gc

__all__ = ["settle"]

COLLECT_AFTER = (20_000, 20, 50)


def settle() -> None:
    """Take what was made so far as lasting: it is not looked at again, and what comes is looked at seldom."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
