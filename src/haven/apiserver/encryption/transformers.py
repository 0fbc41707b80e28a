"""From plaintext to what is stored, and back: one provider writes, all those configured read. Pure.

A stored value begins with its provider's prefix (k8s:enc:PROVIDER:VERSION:NAME:), as upstream has it, so that what one
server wrote can be read by another. The key under which a value is stored is authenticated with it, where the cipher
can: a value moved elsewhere is not taken.
Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

from haven.apiserver.encryption.meter import FROM_STORAGE, TO_STORAGE

__all__ = [
    "ENCRYPTED",
    "Chain",
    "DecryptionFailed",
    "Identity",
    "Opened",
    "Prefixed",
    "SealFailed",
    "Transformer",
    "Ways",
]

ENCRYPTED = b"k8s:enc:"
OK = "OK"


NO_CALL = "unknown-non-grpc"


class DecryptionFailed(Exception):
    """A stored value cannot be read with the keys at hand; the message is upstream's.

    `status` is the code of the call that failed, as Go writes it, if it was one.
    """

    def __init__(self, message: str, status: str = NO_CALL) -> None:
        super().__init__(message)
        self.status = status


class SealFailed(Exception):
    """A value cannot be encrypted now; the message says why. `status` is as for DecryptionFailed."""

    def __init__(self, message: str, status: str = NO_CALL) -> None:
        super().__init__(message)
        self.status = status


Count = Callable[[str, str, float, str], None]
"""Takes (to or from storage, prefix, seconds, status)."""


def _not_counted(_kind: str, _prefix: str, _seconds: float, _status: str) -> None:
    """Nobody wants to know."""


class Opened(NamedTuple):
    """A plaintext. `stale` tells that it should be written anew: not with the key that writes at present."""

    value: bytes
    stale: bool


class Transformer(Protocol):
    """One way of storing."""

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Return what is stored under a key."""
        ...

    def open(self, key: bytes, stored: bytes) -> Opened:
        """Return what was sealed; raise DecryptionFailed."""
        ...


class Ways(Protocol):
    """Tells how resources are stored."""

    def of(self, group: str, plural: str) -> Transformer | None:
        """Return how a resource is stored; None if it is stored as it is."""
        ...


class Identity:
    """Stores what it is given; refuses what others encrypted."""

    def seal(self, key: bytes, value: bytes) -> bytes:
        return value

    def open(self, key: bytes, stored: bytes) -> Opened:
        if stored.startswith(ENCRYPTED):
            raise DecryptionFailed("identity transformer tried to read encrypted data")
        return Opened(stored, False)


class Prefixed(NamedTuple):
    """A way of storing, and how values stored so begin."""

    prefix: bytes
    transformer: Transformer


class Chain:
    """Several ways: the first one writes, and the first whose prefix fits reads. `missing` is said where none fits."""

    def __init__(
        self, ways: Sequence[Prefixed], missing: str = "no matching prefix found", count: Count = _not_counted
    ) -> None:
        assert ways
        self._ways = tuple(ways)
        self._missing = missing
        self._count = count

    def counted(self, count: Count) -> Chain:
        """Return the same ways, counted."""
        ways = [Prefixed(prefix, way.counted(count) if isinstance(way, Chain) else way) for prefix, way in self._ways]
        return Chain(ways, self._missing, count)

    def seal(self, key: bytes, value: bytes) -> bytes:
        prefix, transformer = self._ways[0]
        began, status = perf_counter(), OK
        try:
            return prefix + transformer.seal(key, value)
        except SealFailed as error:
            status = error.status
            raise
        finally:
            self._count(TO_STORAGE, prefix.decode(), perf_counter() - began, status)

    def open(self, key: bytes, stored: bytes) -> Opened:
        errors: list[str] = []
        status = NO_CALL
        began = perf_counter()
        for place, (prefix, transformer) in enumerate(self._ways):
            if not stored.startswith(prefix):
                continue
            if not prefix and stored.startswith(ENCRYPTED):
                continue  # What another provider wrote is not plaintext.
            try:
                value, stale = transformer.open(key, stored[len(prefix) :])
            except DecryptionFailed as error:
                errors.append(str(error))
                status = error.status
                self._count(FROM_STORAGE, prefix.decode(), perf_counter() - began, status)
                continue
            self._count(FROM_STORAGE, prefix.decode() or "identity", perf_counter() - began, OK)
            return Opened(value, stale or place > 0)
        if errors:
            raise DecryptionFailed(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]", status)
        self._count(FROM_STORAGE, "unknown", perf_counter() - began, NO_CALL)
        raise DecryptionFailed(self._missing)
