"""Kubernetes' protobuf form of built-in objects, to and from trees.

The wire is proto2 as gogo-protobuf writes it, framed by `k8s\\0` and a runtime.Unknown that names the kind; which
number a field has is a fact (facts/protobuf.json), which form it has follows from the schema engine's types.
apiVersion and kind of an object travel in the frame only. A walk of our own reads the wire straight into trees:
protobuf libraries would build messages first, which costs a second walk, and cannot express Kubernetes' own forms of
times, quantities and JSON.

Sources: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
and https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from haven.apimachinery import facts
from haven.apimachinery.codecs import wireforms as forms
from haven.apimachinery.codecs.wire import (
    BYTES_WIRE,
    FIXED64_WIRE,
    VARINT_WIRE,
    InvalidProtobuf,
    all_of,
    last,
    number_of,
    read_fields,
    read_varint,
    signed,
    sized,
    skip,
    varint,
)
from haven.apimachinery.schema.model import Field, Schema, schema_named

__all__ = [
    "PREFIX",
    "Framed",
    "InvalidProtobuf",
    "decode",
    "decode_message",
    "encode",
    "encode_list",
    "encode_message",
    "envelope",
    "from_json",
    "has_form",
    "unframe",
    "watch_frame",
]

PREFIX: Final = b"k8s\x00"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_PARTIALS = ("PartialObjectMetadata", "PartialObjectMetadataList")

Tree = dict[str, Any]


# ---- the compiled form of a message

_STRING, _MESSAGE, _MESSAGES, _STRINGS, _MAP, _INT, _BOOL, _BYTES, _OTHER, _OTHERS, _INLINE, _INTS, _BOOLS, _DOUBLE = (
    range(14)
)
_WIRE = {_INT: VARINT_WIRE, _BOOL: VARINT_WIRE, _INTS: VARINT_WIRE, _BOOLS: VARINT_WIRE, _DOUBLE: FIXED64_WIRE}


class _Message:
    """A struct: fields by tag for reading, by JSON name for writing. Compiled at first use: types may be recursive."""

    __slots__ = ("_by_name", "_by_tag", "_definition", "_layout", "_schema")

    def __init__(self, definition: str, schema: Schema, layout: list[Any]) -> None:
        self._definition = definition
        self._schema = schema
        self._layout = layout
        self._by_tag: dict[int, tuple[int, str, bool, Any]] | None = None
        self._by_name: dict[str, tuple[int, bytes, Any]] | None = None

    @property
    def by_tag(self) -> dict[int, tuple[int, str, bool, Any]]:
        """tag -> (form, JSON name, whether a zero value is kept, what the form needs)."""
        if self._by_tag is None:
            self._compile()
        assert self._by_tag is not None
        return self._by_tag

    @property
    def by_name(self) -> dict[str, tuple[int, bytes, Any]]:
        """JSON name -> (form, tag as bytes, what the form needs)."""
        if self._by_name is None:
            self._compile()
        assert self._by_name is not None
        return self._by_name

    def _compile(self) -> None:
        by_tag: dict[int, tuple[int, str, bool, Any]] = {}
        by_name: dict[str, tuple[int, bytes, Any]] = {}
        numbers, embedded = self._layout
        for name, number in numbers.items():
            as_message = name.endswith("*")
            name = name.removesuffix("*")
            field = self._schema.fields.get(name)
            if field is None:
                continue
            # A map of lists (ExtraValue) says so by itself: its values are messages, not the field.
            is_message = as_message and field.schema.kind == "list"
            form, extra = (_OTHER, forms.STRING_LIST) if is_message else _form(field.schema)
            keep = field.pointer or field.always
            tag = number << 3 | _WIRE.get(form, BYTES_WIRE)
            by_tag[tag] = (form, name, keep, extra)
            if form in (_INTS, _BOOLS):
                by_tag[number << 3 | BYTES_WIRE] = (form, name, keep, extra)
            by_name[name] = (form, varint(tag), extra)
        for number_text, layout in embedded.items():
            inner = _Message(self._definition, self._schema, layout)
            tag = int(number_text) << 3 | BYTES_WIRE
            by_tag[tag] = (_INLINE, "", True, inner)
            for name in inner.by_name:
                by_name[name] = (_INLINE, varint(tag), inner)
        self._by_tag, self._by_name = by_tag, by_name


def _form(schema: Schema) -> tuple[int, Any]:
    """Return (form, what it needs) of a field's type."""
    kind = schema.kind
    if kind == "struct":
        return _MESSAGE, _message(schema.definition)
    if kind == "string":
        return _STRING, None
    if kind == "bool":
        return _BOOL, None
    if kind == "bytes":
        return _BYTES, None
    if kind == "float64":
        return _DOUBLE, None
    if kind in _SCALARS:
        return _OTHER, _SCALARS[kind]
    if kind == "map":
        assert schema.element is not None
        form, extra = _value_form(schema.element)
        return _MAP, (form, extra, _zero(form))
    if kind == "list":
        assert schema.element is not None
        form, extra = _value_form(schema.element)
        return {_STRING: _STRINGS, _MESSAGE: _MESSAGES, _INT: _INTS, _BOOL: _BOOLS}.get(form, _OTHERS), extra
    assert kind.lstrip("u").startswith("int"), schema
    return _INT, None


def _value_form(schema: Schema) -> tuple[int, Any]:
    """Return the form of a list's item or a map's value, where a list is a message of its own (ExtraValue)."""
    if schema.kind == "list":
        return _OTHER, forms.STRING_LIST
    form, extra = _form(schema)
    if form == _BYTES:
        return _OTHER, forms.BYTES
    return form, extra


def _zero(form: int) -> Any:
    return {_STRING: "", _MESSAGE: {}, _INT: 0, _BOOL: False}.get(form)


@cache
def _layouts() -> dict[str, list[Any]]:
    return facts.protobuf()


@cache
def _message(definition: str) -> _Message:
    return _Message(definition, _schema(definition), _layouts()[definition])


def _schema(definition: str) -> Schema:
    name = definition.removeprefix(_META)
    if name not in _PARTIALS:
        return schema_named(definition)
    is_list = name.endswith("List")
    fields = {
        "metadata": Field("metadata", schema_named(_META + ("ListMeta" if is_list else "ObjectMeta")), always=True)
    }
    if is_list:
        fields["items"] = Field("items", Schema("list", element=_schema(_META + "PartialObjectMetadata")), always=True)
    return Schema("struct", definition=definition, fields=fields)


def _definition_of(api_version: str, kind: str) -> str | None:
    group, _, version = api_version.rpartition("/")
    if group == "meta.k8s.io" and (kind in _PARTIALS or _META + kind in _layouts()):
        return _META + kind
    definition = facts.kinds().get(f"{group}/{version}/{kind}")
    return definition if definition in _layouts() else None


def has_form(api_version: str, kind: str) -> bool:
    """Tell whether a kind can travel as protobuf."""
    return _definition_of(api_version, kind) is not None


# ---- reading


def _read(data: bytes, pos: int, end: int, fields: dict[int, tuple[int, str, bool, Any]], out: Tree) -> Tree:
    """Read a message's fields between two places into `out`. IndexError means that the data end too early."""
    while pos < end:
        tag = data[pos]
        pos += 1
        if tag > 0x7F:
            tag, pos = read_varint(data, pos - 1)
        entry = fields.get(tag)
        if entry is None:
            pos = skip(data, pos, tag)
            continue
        form, name, keep, extra = entry
        if tag & 7 == BYTES_WIRE:
            size = data[pos]
            pos += 1
            if size > 0x7F:
                size, pos = read_varint(data, pos - 1)
            stop = pos + size
            if stop > end:
                raise IndexError
            if form == _STRING:
                if size or keep:
                    out[name] = str(data[pos:stop], "utf-8", "replace")
            elif form == _MESSAGE:
                if size or keep:
                    # A message given twice is merged, as the encoding's rules want.
                    value = _read(data, pos, stop, extra.by_tag, out.get(name) or {})
                    if value or keep:
                        out[name] = value
            elif form == _MESSAGES:
                out.setdefault(name, []).append(_read(data, pos, stop, extra.by_tag, {}))
            elif form == _STRINGS:
                out.setdefault(name, []).append(str(data[pos:stop], "utf-8", "replace"))
            elif form == _MAP:
                _read_entry(data, pos, stop, extra, out.setdefault(name, {}))
            elif form == _INLINE:
                _read(data, pos, stop, extra.by_tag, out)
            elif form == _OTHER:
                value = extra.read(data[pos:stop])
                if keep or value not in (None, ""):
                    out[name] = value
            elif form == _OTHERS:
                out.setdefault(name, []).append(extra.read(data[pos:stop]))
            elif form == _BYTES:
                if size or keep:
                    out[name] = base64.b64encode(data[pos:stop]).decode()
            else:
                items = out.setdefault(name, [])
                while pos < stop:
                    number, pos = read_varint(data, pos)
                    items.append(number != 0 if form == _BOOLS else signed(number))
            pos = stop
            continue
        if form == _DOUBLE:
            (number,) = struct.unpack_from("<d", data, pos)
            pos += 8
            if number or keep:
                out[name] = int(number) if number.is_integer() else number
            continue
        number = data[pos]
        pos += 1
        if number > 0x7F:
            number, pos = read_varint(data, pos - 1)
        if form == _INT:
            if number or keep:
                out[name] = signed(number)
        elif form == _BOOL:
            if number or keep:
                out[name] = number != 0
        else:
            out.setdefault(name, []).append(number != 0 if form == _BOOLS else signed(number))
    if pos != end:
        raise IndexError
    return out


_ENTRY_KEY, _ENTRY_VALUE = 1 << 3 | BYTES_WIRE, 2 << 3 | BYTES_WIRE


def _read_entry(data: bytes, pos: int, end: int, value_form: tuple[int, Any, Any], out: Tree) -> None:
    form, extra, zero = value_form
    key = ""
    value = zero if zero != {} else {}
    seen = False
    while pos < end:
        tag, pos = read_varint(data, pos)
        if tag == _ENTRY_KEY or (tag == _ENTRY_VALUE and form in (_STRING, _MESSAGE, _OTHER)):
            size, pos = read_varint(data, pos)
            stop = pos + size
            if stop > end:
                raise IndexError
            if tag == _ENTRY_KEY:
                key = str(data[pos:stop], "utf-8", "replace")
            elif form == _STRING:
                value = str(data[pos:stop], "utf-8", "replace")
            elif form == _MESSAGE:
                value = _read(data, pos, stop, extra.by_tag, {})
            else:
                value, seen = extra.read(data[pos:stop]), True
            pos = stop
        elif tag == 2 << 3 | VARINT_WIRE and form in (_INT, _BOOL):
            number, pos = read_varint(data, pos)
            value = number != 0 if form == _BOOL else signed(number)
        else:
            pos = skip(data, pos, tag)
    out[key] = extra.read(b"") if form == _OTHER and not seen else value


# ---- writing


def _write(tree: Tree, fields: dict[str, tuple[int, bytes, Any]]) -> bytes:
    out: list[bytes] = []
    inline: dict[bytes, tuple[_Message, Tree]] = {}
    for name, value in tree.items():
        entry = fields.get(name)
        if entry is None:
            continue
        form, key, extra = entry
        if value is None:
            # Go writes the zero time as an empty message; other nulls are fields that are not set.
            continue
        if form == _STRING:
            out.append(sized(key, value.encode("utf-8", "replace")))
        elif form == _MESSAGE:
            out.append(sized(key, _write(value, extra.by_name)))
        elif form == _MESSAGES:
            names = extra.by_name
            out += [sized(key, _write(item or {}, names)) for item in value]
        elif form == _STRINGS:
            out += [sized(key, (item or "").encode("utf-8", "replace")) for item in value]
        elif form == _MAP:
            out += [sized(key, _write_entry(entry_key, value[entry_key], extra)) for entry_key in sorted(value)]
        elif form == _INLINE:
            inline.setdefault(key, (extra, {}))[1][name] = value
        elif form == _OTHER:
            out.append(sized(key, extra.write(value)))
        elif form == _OTHERS:
            out += [sized(key, extra.write(item)) for item in value]
        elif form == _BYTES:
            out.append(sized(key, base64.b64decode(value)))
        elif form == _DOUBLE:
            out.append(key + struct.pack("<d", value))
        elif form in (_INT, _BOOL):
            out.append(key + varint(int(value)))
        else:
            out += [key + varint(int(item)) for item in value]
    for key, (message, part) in inline.items():
        out.append(sized(key, _write(part, message.by_name)))
    return b"".join(out)


def _write_entry(key: str, value: Any, value_form: tuple[int, Any, Any]) -> bytes:
    form, extra, _ = value_form
    result = sized(b"\x0a", key.encode("utf-8", "replace"))
    if form == _STRING:
        return result + sized(b"\x12", (value or "").encode("utf-8", "replace"))
    if form == _MESSAGE:
        return result + sized(b"\x12", _write(value or {}, extra.by_name))
    if form == _OTHER:
        return result + sized(b"\x12", extra.write(value))
    return result + b"\x10" + varint(int(value))


def _props(data: bytes) -> Tree:
    return _read(data, 0, len(data), _message(_PROPS).by_tag, {})


def _write_props(tree: Tree) -> bytes:
    return _write(tree, _message(_PROPS).by_name)


def _read_schema_or_bool(data: bytes) -> Any:
    value = read_fields(data, {1: "allows", 2: "schema"})
    return _props(last(value, "schema")) if "schema" in value else number_of(value, "allows") != 0


def _write_schema_or_bool(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x08\x01" if value else b"\x08\x00"
    return sized(b"\x08\x01\x12", _write_props(value))


def _read_schema_or_array(data: bytes) -> Any:
    value = read_fields(data, {1: "schema", 2: "schemas"})
    if "schemas" in value:
        return [_props(item) for item in all_of(value, "schemas")]
    return _props(last(value, "schema")) if "schema" in value else None


def _write_schema_or_array(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(sized(b"\x12", _write_props(item)) for item in value)
    return sized(b"\x0a", _write_props(value))


def _read_schema_or_strings(data: bytes) -> Any:
    value = read_fields(data, {1: "schema", 2: "property"})
    if "property" in value:
        return [item.decode("utf-8", "replace") for item in all_of(value, "property")]
    return _props(last(value, "schema")) if "schema" in value else None


def _write_schema_or_strings(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(sized(b"\x12", item.encode("utf-8", "replace")) for item in value)
    return sized(b"\x0a", _write_props(value))


_SCALARS: Final[dict[str, forms.Scalar]] = {
    **forms.SCALARS,
    "raw": forms.Scalar(lambda data: _read_raw(data), forms.RAW.write),
    "schema_or_bool": forms.Scalar(_read_schema_or_bool, _write_schema_or_bool),
    "schema_or_array": forms.Scalar(_read_schema_or_array, _write_schema_or_array),
    "schema_or_strings": forms.Scalar(_read_schema_or_strings, _write_schema_or_strings),
}


def _read_raw(data: bytes) -> Any:
    raw = last(read_fields(data, {1: "raw"}), "raw")
    return decode(raw) if raw.startswith(PREFIX) else forms.RAW.read(data)


# ---- objects


class Framed(NamedTuple):
    """A frame: which kind it says it holds ("" where it does not say), and the message."""

    api_version: str
    kind: str
    raw: bytes


def unframe(data: bytes) -> Framed:
    """Return what a frame holds; raise InvalidProtobuf."""
    if not data:
        raise InvalidProtobuf("empty data")
    if not data.startswith(PREFIX):
        raise InvalidProtobuf("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    if data == PREFIX:
        raise InvalidProtobuf("empty body")
    try:
        unknown = read_fields(data[len(PREFIX) :], {1: "type", 2: "raw"})
        names = read_fields(last(unknown, "type"), {1: "api_version", 2: "kind"})
    except IndexError:
        raise InvalidProtobuf("unexpected EOF") from None
    return Framed(last(names, "api_version").decode(errors="replace"), last(names, "kind").decode(errors="replace"),
                  last(unknown, "raw"))  # fmt: skip


def decode_message(raw: bytes, api_version: str, kind: str) -> Tree:
    """Return the tree of a message without its frame; raise InvalidProtobuf, KeyError for a kind without a form."""
    definition = _definition_of(api_version, kind)
    if definition is None:
        raise KeyError(f"{api_version} {kind}")
    tree: Tree = {"kind": kind, "apiVersion": api_version}
    try:
        return _read(raw, 0, len(raw), _message(definition).by_tag, tree)
    except IndexError:
        raise InvalidProtobuf("unexpected EOF") from None
    except RecursionError:
        raise InvalidProtobuf("proto: message nested too deeply") from None


def decode(data: bytes) -> Tree:
    """Return the tree of a framed object, with apiVersion and kind; raise InvalidProtobuf, KeyError."""
    framed = unframe(data)
    return decode_message(framed.raw, framed.api_version, framed.kind)


def encode_message(tree: Tree, api_version: str, kind: str) -> bytes:
    """Return an object without a frame, as lists hold their items; raise KeyError for a kind without a form."""
    definition = _definition_of(api_version, kind)
    if definition is None:
        raise KeyError(f"{api_version} {kind}")
    return _write(tree, _message(definition).by_name)


def envelope(raw: bytes, api_version: str, kind: str) -> bytes:
    """Return a message in its frame."""
    names = sized(b"\x0a", api_version.encode()) + sized(b"\x12", kind.encode())
    return b"".join((PREFIX, sized(b"\x0a", names), b"\x12", varint(len(raw)), raw, b"\x1a\x00\x22\x00"))


def encode(tree: Tree, api_version: str = "", kind: str = "") -> bytes:
    """Return an object in its frame; by default its own apiVersion and kind name it."""
    api_version, kind = api_version or tree["apiVersion"], kind or tree["kind"]
    return envelope(encode_message(tree, api_version, kind), api_version, kind)


def from_json(data: bytes) -> bytes:
    """Return a framed object from JSON that names its kind, as the store keeps it."""
    return encode(msgspec.json.decode(data))


def encode_list(api_version: str, kind: str, metadata: Tree, items: Iterable[bytes]) -> bytes:
    """Return a framed list of messages without frames (see `encode_message`)."""
    meta = sized(b"\x0a", _write(metadata, _message(_META + "ListMeta").by_name))
    return envelope(b"".join([meta, *(sized(b"\x12", item) for item in items)]), api_version, kind)


def watch_frame(event_type: str, framed_object: bytes) -> bytes:
    """Return one event of a watch: four bytes of length, then a WatchEvent that is not framed itself."""
    event = sized(b"\x0a", event_type.encode()) + sized(b"\x12", sized(b"\x0a", framed_object))
    return struct.pack(">I", len(event)) + event
