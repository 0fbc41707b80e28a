"""Logging for every room: one fixed sentence plus fields, JSON or plain."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog

__all__ = ["Logger", "configure", "logger"]

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
