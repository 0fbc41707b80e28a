"""How often tokens are remembered, how long judging the others takes, of which kind service accounts' are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from haven.apimachinery.apierrors import Unauthorized
from haven.metrics.families import Histogram

__all__ = ["AccountTokenUses", "Judgements", "KeyFetches", "TokenStatistics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JUDGING = (0.001, *_SECONDS)


class TokenStatistics:
    """Tokens that were looked up: `hits` were remembered, which takes no time worth mentioning."""

    __slots__ = ("failed", "fetched", "hits", "in_flight", "misses")

    def __init__(self) -> None:
        self.hits = self.fetched = self.failed = self.in_flight = 0
        self.misses = Histogram(_SECONDS)

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Count a token that is not remembered and is judged inside; to be refused is an error."""
        began = perf_counter()
        self.in_flight += 1
        try:
            yield
        except BaseException:
            self.failed += 1
            raise
        else:
            self.fetched += 1
        finally:
            self.in_flight -= 1
            self.misses.add(int((perf_counter() - began) * 1000) / 1000)  # Upstream counts whole milliseconds.


class AccountTokenUses:
    """Service accounts' tokens that were judged."""

    __slots__ = ("generated", "invalid", "legacy", "manual", "stale", "valid")

    def __init__(self) -> None:
        self.legacy = self.generated = self.manual = self.invalid = self.stale = self.valid = 0


class Judgements:
    """How long judging an issuer's tokens took."""

    __slots__ = ("failure", "success")

    def __init__(self) -> None:
        self.success, self.failure = Histogram(_JUDGING), Histogram(_JUDGING)

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Count a token that is judged inside."""
        began, spread = perf_counter(), self.success
        try:
            yield
        except Unauthorized:
            spread = self.failure
            raise
        finally:
            spread.add(perf_counter() - began)


class KeyFetches:
    """When an issuer's keys were got last and when they could not be got, and a hash of them."""

    __slots__ = ("digest", "failed_at", "got_at")

    def __init__(self) -> None:
        self.got_at = self.failed_at = 0.0
        self.digest = ""
