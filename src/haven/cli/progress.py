"""Progress of long work: a live line on a terminal, one plain line per finished step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["step"]

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show that `title` is going on, then how long it took, or that it failed."""
    terminal = sys.stderr.isatty()
    start = time.monotonic()
    if terminal:
        print(f"\r\x1b[36m{_FRAMES[0]}\x1b[0m {title} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        mark = "\r\x1b[K\x1b[31m✗\x1b[0m" if terminal else "FAILED"
        print(f"{mark} {title}", file=sys.stderr, flush=True)
        raise
    seconds = time.monotonic() - start
    if terminal:
        print(f"\r\x1b[K\x1b[32m✓\x1b[0m {title} \x1b[2m{seconds:.1f} s\x1b[0m", file=sys.stderr, flush=True)
    else:
        print(f"ok {title} ({seconds:.1f} s)", file=sys.stderr, flush=True)
