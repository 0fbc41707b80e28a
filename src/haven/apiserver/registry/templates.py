"""What many alike objects have in common is worked out once: Pods come by the thousand from one template.

Up to admission the way of a new object is a pure function of its body, the path, the field manager and the time. Two
bodies that differ in metadata.name alone give objects that differ in nothing else, so the object of the first,
without its name, is kept as JSON and decoded anew for each that follows. In the same way a strategy tells what its
checks look at (`Strategy.alike`): what passed them once, without a complaint or a warning, passes them again.

Both are keyed by digests of everything that the answer depends on, hold a bounded number of entries, and hold only
sound objects: whatever gives a complaint or a warning goes the long way every time.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import blake2b
from typing import Any, NamedTuple

from haven.api.strategy import Strategy
from haven.apimachinery import serialization
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import IGNORE, WriteParameters
from haven.apiserver.request import Request

__all__ = ["Likeness", "Templates"]

ENTRIES_MAX = 1024
BODY_BYTES_MAX = 32 << 10
"""Of a larger body the copy would cost more than is saved."""

_NAME = re.compile(
    rb'\s*\{\s*(?:"(?:kind|apiVersion)"\s*:\s*"[\w./]*"\s*,\s*)*"metadata"\s*:\s*\{\s*"name"\s*:\s*"([a-z0-9.-]+)"',
    re.ASCII,
)
"""The usual beginning of a body: the first metadata of the object itself, the name first in it."""


class Likeness(NamedTuple):
    """What an object is made of beside its own name."""

    digest: bytes
    name: str


class Templates:
    """Objects made before, as they were before admission, and digests of objects that passed all checks."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._made: OrderedDict[bytes, bytes | None] = OrderedDict()
        self._sound: OrderedDict[bytes, None] = OrderedDict()

    def likeness(
        self, request: Request, endpoint: Endpoint, parameters: WriteParameters, manager: str
    ) -> Likeness | None:
        """Return what the object in a request is made of; None if it is not worth remembering, or not safe."""
        if endpoint.strategy.alike is None or parameters.field_validation == IGNORE:
            return None
        name = ""
        if request.object is not None:
            if request.object.metadata.name:
                return None
            parts = [serialization.encode(request.object)]
        else:
            body = request.body
            if len(body) > BODY_BYTES_MAX:
                return None
            found = _NAME.match(body)
            if found is not None:
                name = found[1].decode()
                # Where the name stood is part of what is compared: the parts and the name give back the body.
                parts = [body[: found.start(1)], body[found.end(1) :]]
            else:
                parts = [body]
        about = (
            *endpoint.gvk,
            request.info.namespace,
            manager,
            parameters.field_validation,
            "object" if request.object is not None else request.headers.get("content-type", ""),
        )
        digest = blake2b(digest_size=24)
        for part in ("\0".join(about).encode(), *parts):
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return Likeness(digest.digest(), name)

    def make(self, likeness: Likeness, endpoint: Endpoint, now: str) -> Any | None:
        """Return a new object like one made before, its managedFields dated `now`; None if there was none."""
        data = self._made.get(likeness.digest)
        if data is None:
            return None
        self._made.move_to_end(likeness.digest)
        obj = serialization.decode(data, endpoint.storage.resource.type)
        metadata = obj.metadata
        metadata.name = likeness.name
        for entry in metadata.managed_fields:
            entry.time = now
        return obj

    def keep(self, likeness: Likeness, obj: Any) -> None:
        """Remember an object that was made without a complaint or a warning, from the second one of its like on.

        Its managedFields must all be dated now.
        """
        metadata = obj.metadata
        if metadata.name != likeness.name or len(metadata.managed_fields) > 1:
            return
        data: bytes | None = None
        if likeness.digest in self._made:
            metadata.name = ""
            data = serialization.encode(obj)
            metadata.name = likeness.name
        self._made[likeness.digest] = data
        if len(self._made) > self._entries_max:
            self._made.popitem(last=False)

    # ---- checks

    @staticmethod
    def fingerprint(strategy: Strategy[Any], obj: Any) -> bytes | None:
        """Return a digest of what the checks of a new object look at; None if they are to be run in any case."""
        if strategy.alike is None:
            return None
        data = strategy.alike(obj)
        return None if data is None else blake2b(data, digest_size=24).digest()

    def is_sound(self, fingerprint: bytes | None) -> bool:
        """Tell whether an object with this fingerprint passed all checks without a complaint or a warning."""
        if fingerprint is None or fingerprint not in self._sound:
            return False
        self._sound.move_to_end(fingerprint)
        return True

    def found_sound(self, fingerprint: bytes | None) -> None:
        """Remember that one did."""
        if fingerprint is None:
            return
        self._sound[fingerprint] = None
        if len(self._sound) > self._entries_max:
            self._sound.popitem(last=False)
