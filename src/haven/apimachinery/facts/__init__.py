"""What upstream's published API definitions say, as data. Written by tools/build_facts.py.

`definitions` are the OpenAPI v2 definitions as upstream publishes them, without the prose; `descriptions` the prose;
`types` the compact table that the schema engine compiles. Each file is read at its first use; all but the prose
are kept.
"""

from __future__ import annotations

import gzip
import pathlib
from functools import cache
from typing import Any

import msgspec

__all__ = ["Element", "FieldFacts", "TypeFacts", "definitions", "descriptions", "kinds", "protobuf", "types"]

_FOLDER = pathlib.Path(__file__).parent


class Element(msgspec.Struct):
    """A type: `kind` is a wire form, or "#" and the definition that it refers to."""

    kind: str = msgspec.field(name="t")
    go: str = msgspec.field(name="g", default="")
    element: Element | None = msgspec.field(name="e", default=None)
    pointer: int = msgspec.field(name="p", default=0)
    list_type: str = msgspec.field(name="l", default="")
    map_keys: list[str] = msgspec.field(name="K", default_factory=list)
    map_type: str = msgspec.field(name="m", default="")
    key: str = "string"


class FieldFacts(Element, kw_only=True):
    """A field of a struct; `always` tells whether Go writes it although it is zero."""

    name: str = msgspec.field(name="n")
    always: int = msgspec.field(name="a", default=0)
    required: int = msgspec.field(name="r", default=0)
    strategy: str = msgspec.field(name="s", default="")
    merge_key: str = msgspec.field(name="k", default="")
    embedded: str = msgspec.field(name="x", default="")
    default: Any = msgspec.field(name="d", default=None)


class TypeFacts(msgspec.Struct):
    """A struct; `go` is its name as Go prints it, such as v1.Pod."""

    go: str = msgspec.field(name="g")
    fields: list[FieldFacts] = msgspec.field(name="f")
    map_type: str = msgspec.field(name="m", default="")


class _Table(msgspec.Struct):
    kinds: dict[str, str]
    types: dict[str, TypeFacts]


@cache
def _table() -> _Table:
    return msgspec.json.decode((_FOLDER / "types.json").read_bytes(), type=_Table)


def types() -> dict[str, TypeFacts]:
    """Return the engine's facts by definition name, such as io.k8s.api.core.v1.Pod."""
    return _table().types


def kinds() -> dict[str, str]:
    """Return definition names by "group/version/kind"; the core group is ""."""
    return _table().kinds


@cache
def definitions() -> dict[str, Any]:
    """Return the OpenAPI v2 definitions without descriptions."""
    result: dict[str, Any] = msgspec.json.decode((_FOLDER / "definitions.json").read_bytes())
    return result


@cache
def protobuf() -> dict[str, list[Any]]:
    """Return field numbers by definition; see tools/build_protobuf_facts.py for the layout."""
    result: dict[str, list[Any]] = msgspec.json.decode((_FOLDER / "protobuf.json").read_bytes())
    return result


def descriptions() -> dict[str, tuple[str, dict[str, str]]]:
    """Return the prose: definition -> (its own, property -> text). Not kept: ask once and splice."""
    data = gzip.decompress((_FOLDER / "descriptions.json.gz").read_bytes())
    return msgspec.json.decode(data, type=dict[str, tuple[str, dict[str, str]]])
