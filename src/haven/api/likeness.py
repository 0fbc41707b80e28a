"""What nothing depends on in a new object: objects that differ in these values alone are made in the same way.

A kind that is made by the thousand declares its free values. Its defaults, its checks, its warnings and its stored form
must not depend on which value stands there, as long as the value keeps to its rule; and no steady admission plugin may
look at it. A value that breaks its rule is not free: then the object is like others with exactly this value.

Rules are regular expressions over the inside of a JSON string as it stands in a body. They let through only what our
encoder writes in the same way, so that a value can be taken over as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "ANNOTATIONS",
    "HOST_NAME",
    "LABELS",
    "MICRO_TIME",
    "SHORT_TEXT",
    "SUBDOMAIN",
    "TEXT",
    "TEXT_OR_NOTHING",
    "TIME",
    "Free",
    "Likeness",
]

_CHARACTER = rb'(?:[ !#-\[\]-~\x80-\xff]|\\["\\bfnrt])'
TEXT = _CHARACTER + b"+"
SHORT_TEXT = rb"(?=[^\x00]{1,1000}\x00)" + TEXT
TIME = rb"[1-9]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"
MICRO_TIME = TIME[:-1] + rb"\.\d{6}Z"
TEXT_OR_NOTHING = _CHARACTER + b"*"
"""For members of maps and lists: there a text without characters is written like any other."""
LABEL_VALUE = rb"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
HOST_NAME = rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = rb"(?=[-a-z0-9.]{1,253}\x00)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"

_NOBODY_KNOWS = re.compile(r"(?!.*(?:k8s|kubernetes)\.io/).*", re.DOTALL)
"""Keys that mean nothing to Kubernetes itself."""


@dataclass(frozen=True, slots=True)
class Free:
    """Where a free value stands, and what it must look like.

    A step of the path is a field's name, "*" for any item or member, or a pattern for the keys of a map. In a rule,
    the end of the value may be asked for as NUL.
    """

    path: tuple[str | re.Pattern[str], ...]
    rule: bytes


@dataclass(frozen=True, slots=True)
class Likeness:
    """How objects of a kind are alike.

    `free` returns the free values of bodies in which these names of fields (and keys of maps) occur; the name of the
    object has to be among them. None: no two such objects are made in the same way. `made_up` are names that admission
    makes up, each time another.
    """

    free: Callable[[frozenset[str]], Sequence[Free] | None]
    made_up: re.Pattern[str] | None = None


LABELS = Free(("metadata", "labels", "*"), LABEL_VALUE)
ANNOTATIONS = Free(("metadata", "annotations", _NOBODY_KNOWS), TEXT_OR_NOTHING)
