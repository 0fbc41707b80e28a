"""Metadata that the server itself owns: identity, times, namespace, generation, deletion marks.

Pure functions over typed objects. Source: k8s.io/apiserver's registry/rest (BeforeCreate, BeforeUpdate, BeforeDelete).
"""

from __future__ import annotations

import os
import random
from typing import Any

from haven.apimachinery import apierrors, meta, times
from haven.apimachinery.names import UID

__all__ = [
    "another_name",
    "check_name",
    "deduplicate_owners",
    "ensure_namespace",
    "fill",
    "generate_name",
    "new_uid",
    "prepare_update",
    "wipe",
]

_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_GENERATED_BASE_MAX = 58
_SUFFIX_LENGTH = 5
_SUFFIXES = len(_NAME_ALPHABET) ** _SUFFIX_LENGTH


def generate_name(base: str, chance: random.Random) -> str:
    """Return a name that begins with a base, cut so that a suffix fits into a DNS label."""
    return base[:_GENERATED_BASE_MAX] + _suffix(chance)


def another_name(name: str, chance: random.Random) -> str:
    """Return a name that was made up anew: with another suffix. "" stays ""."""
    return name and name[:-_SUFFIX_LENGTH] + _suffix(chance)


def _suffix(chance: random.Random) -> str:
    number = int(chance.random() * _SUFFIXES)
    text = ""
    for _ in range(_SUFFIX_LENGTH):
        number, place = divmod(number, len(_NAME_ALPHABET))
        text += _NAME_ALPHABET[place]
    return text


def new_uid() -> UID:
    """Return a random identity: a UUID of version 4, written without the detour over uuid.UUID."""
    text = os.urandom(16).hex()
    return UID(f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}")


def wipe(metadata: meta.ObjectMeta) -> None:
    """Clear what clients may not set on a new object."""
    metadata.creation_timestamp = None
    metadata.uid = UID("")
    metadata.deletion_timestamp = None
    metadata.deletion_grace_period_seconds = None
    metadata.self_link = ""


def fill(metadata: meta.ObjectMeta, now_seconds: float) -> None:
    """Give a new object its time and identity."""
    metadata.creation_timestamp = times.format_time(now_seconds)
    metadata.uid = new_uid()


def ensure_namespace(metadata: meta.ObjectMeta, namespace: str) -> None:
    """Put the object in the request's namespace ("" for cluster-scoped ones); raise BadRequest if it names another."""
    if not namespace or not metadata.namespace:
        metadata.namespace = namespace
    elif metadata.namespace != namespace:
        raise apierrors.BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_name(metadata: meta.ObjectMeta, name: str) -> None:
    """Raise BadRequest unless the object has the name in the URL."""
    if not metadata.name:
        raise apierrors.BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if metadata.name != name:
        raise apierrors.BadRequest(
            f"the name of the object ({metadata.name}) does not match the name on the URL ({name})"
        )


def deduplicate_owners(obj: Any, warnings: list[str], *, after_admission: bool) -> None:
    """Drop equal owner references, with a warning."""
    references = obj.metadata.owner_references
    if len(references) < 2:
        return
    kept: list[meta.OwnerReference] = []
    repeated: list[str] = []
    seen: set[str] = set()
    for reference in references:
        if reference.uid in seen and reference in kept:
            if reference.uid not in repeated:
                repeated.append(reference.uid)
            continue
        seen.add(reference.uid)
        kept.append(reference)
    if not repeated:
        return
    obj.metadata.owner_references = kept
    when = " after mutating admission happens" if after_admission else ""
    warnings.append(
        f".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, "
        "and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
        + ", ".join(repeated)
    )


def prepare_update(new: meta.ObjectMeta, old: meta.ObjectMeta) -> None:
    """Keep what an update may not change. Call after the strategy's own preparation."""
    if not new.uid:
        new.uid = old.uid
    if old.creation_timestamp:
        new.creation_timestamp = old.creation_timestamp
    if old.deletion_timestamp:
        new.deletion_timestamp = old.deletion_timestamp
    if old.deletion_grace_period_seconds is not None and new.deletion_grace_period_seconds is None:
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds
