"""How much history is kept: a pure decision.

History serves lists that page at one revision and watches that resume. It ends at the first of three limits: age,
number of revisions, bytes. Invariant: the target never goes back and never passes the newest revision.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from haven.apimachinery.names import Revision

__all__ = ["Retention", "RetentionLimits"]

SAMPLE_SECONDS = 0.5  # How finely time is resolved: one note per commit would be a list as long as the history.


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """When history ends; whichever limit comes first."""

    seconds: float = 300.0  # Upstream compacts every five minutes; continue tokens live that long.
    revisions: int = 50_000
    bytes: int = 128 << 20  # Keeps the file small when objects are large and writes many.


@dataclass(frozen=True, slots=True)
class _Sample:
    """When `revision` was the newest, and how many bytes had been written by then."""

    at_seconds: float
    revision: Revision
    written_bytes: int


class Retention:
    """Decides up to which revision history may be forgotten. Time must not go back."""

    def __init__(self, limits: RetentionLimits, *, compacted: Revision, newest: Revision, now_seconds: float) -> None:
        self._limits = limits
        self._target = compacted
        self._written_bytes = 0
        self._newest = newest
        self._samples: deque[_Sample] = deque([_Sample(now_seconds, newest, 0)])

    def record(self, revision: Revision, written_bytes: int, now_seconds: float) -> None:
        """Note that `revision` is the newest now, and how much was written since the last note."""
        self._newest = revision
        self._written_bytes += written_bytes
        last = self._samples[-1]
        bytes_step = self._limits.bytes // 64
        if now_seconds - last.at_seconds >= SAMPLE_SECONDS or self._written_bytes - last.written_bytes >= bytes_step:
            self._samples.append(_Sample(now_seconds, revision, self._written_bytes))

    def target(self, now_seconds: float) -> Revision:
        """Return the revision before which history may go."""
        samples, limits = self._samples, self._limits
        while samples and (
            now_seconds - samples[0].at_seconds > limits.seconds
            or self._written_bytes - samples[0].written_bytes > limits.bytes
        ):
            self._target = max(self._target, samples.popleft().revision)
        if not samples:
            samples.append(_Sample(now_seconds, self._newest, self._written_bytes))
        self._target = max(self._target, Revision(self._newest - limits.revisions))
        return self._target
