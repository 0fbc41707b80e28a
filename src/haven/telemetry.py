"""Logging for every room: one fixed sentence plus fields, JSON or plain; and a tally of how long things take."""

from __future__ import annotations

import contextlib
import logging
import sys
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TextIO, cast

if "rich" not in sys.modules:  # structlog imports it for tracebacks that nobody here asks for: a tenth of every start.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog

__all__ = ["Durations", "Logger", "configure", "is_configured", "logger"]

Logger = structlog.typing.FilteringBoundLogger


class _Unfailing:
    """A stream that loses what it cannot write: a full disk under a log must not end who has something to say."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def logger(component: str) -> Logger:
    """Return the logger of a component; usable before `configure`."""
    result: Logger = structlog.get_logger(component=component)
    return result


def configure(*, level: str = "info", json: bool = False, stream: TextIO | None = None) -> None:
    """Set how the process logs; called once, by haven.cli."""
    renderer = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "component", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(stream or sys.stderr))),
        cache_logger_on_first_use=True,
    )


def is_configured() -> bool:
    """Tell whether somebody has set how the process logs, by `configure` or by structlog's own means."""
    return structlog.is_configured()


DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Durations:
    """How many things took how long: `counts` has one number per bound (seconds) and one for what was longer."""

    bounds: tuple[float, ...] = DURATION_BOUNDS
    counts: list[int] = field(default_factory=list)
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)
