"""From plaintext to what is stored, and back: one provider writes, all those configured read. Pure.

A stored value begins with its provider's prefix (k8s:enc:PROVIDER:VERSION:NAME:), as upstream has it, so that what one
server wrote can be read by another. The key under which a value is stored is authenticated with it, where the cipher
can: a value moved elsewhere is not taken.
Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

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


class DecryptionFailed(Exception):
    """A stored value cannot be read with the keys at hand; the message is upstream's."""


class SealFailed(Exception):
    """A value cannot be encrypted now; the message says why."""


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

    def __init__(self, ways: Sequence[Prefixed], missing: str = "no matching prefix found") -> None:
        assert ways
        self._ways = tuple(ways)
        self._missing = missing

    def seal(self, key: bytes, value: bytes) -> bytes:
        prefix, transformer = self._ways[0]
        return prefix + transformer.seal(key, value)

    def open(self, key: bytes, stored: bytes) -> Opened:
        errors: list[str] = []
        for place, (prefix, transformer) in enumerate(self._ways):
            if not stored.startswith(prefix):
                continue
            if not prefix and stored.startswith(ENCRYPTED):
                continue  # What another provider wrote is not plaintext.
            try:
                value, stale = transformer.open(key, stored[len(prefix) :])
            except DecryptionFailed as error:
                errors.append(str(error))
                continue
            return Opened(value, stale or place > 0)
        if errors:
            raise DecryptionFailed(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
        raise DecryptionFailed(self._missing)
