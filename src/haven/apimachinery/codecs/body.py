"""The body of a request that writes: from bytes of any media type to a checked tree, refused as upstream refuses it.

The steps are upstream's, so that the first complaint is the same: media type, syntax, apiVersion and kind, whether
there is such a kind, field types, unknown and repeated fields, whether it is the kind that belongs here.
Source: the behaviour of k8s.io/apiserver's create and update handlers and of apimachinery's serializers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from haven.apimachinery.apierrors import BadRequest, RequestEntityTooLarge
from haven.apimachinery.codecs import protobuf, yaml
from haven.apimachinery.codecs.negotiate import JSON, PROTOBUF, YAML, body_media_type
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema import Findings, Schema, check, normalize, schema_for
from haven.apimachinery.schema.gojson import syntax_error

__all__ = ["BODY_BYTES_MAX", "Body", "Unreadable", "check_size", "read_body", "read_json"]

BODY_BYTES_MAX = 3 * 1024 * 1024
_SUMMARY_BYTES = 30
_SCHEME = "pkg/api/legacyscheme/scheme.go:30"

Tree = dict[str, Any]
Checker = Callable[[Any, bytes | None], Findings]


@dataclass(frozen=True, slots=True)
class Body:
    """What a client sent: a tree in canonical form with apiVersion and kind, and warnings for the answer's headers."""

    tree: Tree
    warnings: Sequence[str] = ()


class Unreadable(Exception):
    """The bytes say nothing that could be named: (complaint)."""


def check_size(size: int) -> None:
    """Raise RequestEntityTooLarge for a body larger than the server takes."""
    if size > BODY_BYTES_MAX:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")


def read_body(
    data: bytes,
    content_type: str,
    api_version: str,
    kind: str,
    *,
    schema: Schema | None = None,
    field_validation: str = "",
    accepted: Sequence[str] = (JSON, YAML, PROTOBUF),
    check_tree: Checker | None = None,
) -> Body:
    """Return the object that a body describes, which must be of the kind that the endpoint has.

    `schema` is only given for kinds that are not built in; `check_tree` replaces the check against it where a kind has
    rules of its own. `field_validation` is Strict, Warn, Ignore or "" (Warn). Raise UnsupportedMediaType,
    RequestEntityTooLarge or BadRequest.
    """
    media_type = body_media_type(content_type, accepted)
    check_size(len(data))
    try:
        tree, text, complaints = _READERS[media_type](data)
        actual_version, actual_kind = _names(tree, text, api_version, kind)
    except Unreadable as error:
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {kind}): {error} ({_summary(data)})"
        ) from None

    def refuse(because: str) -> BadRequest:
        version = actual_version.rpartition("/")[2]
        return BadRequest(f"{actual_kind} in version {quote(version)} cannot be handled as a {kind}: {because}")

    group, _, version = actual_version.rpartition("/")
    is_expected = (actual_version, actual_kind) == (api_version, kind)
    found = schema if schema is not None and is_expected else schema_for(group, version, actual_kind)
    if found is None:
        raise refuse(
            f"no kind {quote(actual_kind)} is registered for version {quote(actual_version)} in scheme {quote(_SCHEME)}"
        )
    if media_type == PROTOBUF:
        findings = Findings()
    else:
        findings = check_tree(tree, text) if check_tree and is_expected else check(tree, found, text)
        if findings.error is not None:
            raise refuse(findings.error)
    strict = [*complaints, *findings.strict]
    if strict and field_validation == "Strict":
        raise refuse("strict decoding error: " + ", ".join(strict))
    if not is_expected:
        if actual_kind != kind or group != api_version.rpartition("/")[0]:
            go = found.go or f"{version}.{actual_kind}"
            raise refuse(f"converting ({go}) to ({_internal(api_version)}.{kind}): unknown conversion")
        raise BadRequest(
            f"the API version in the data ({actual_version}) does not match the expected API version ({api_version})"
        )
    if findings.dirty:
        tree = normalize(tree, found)
    tree["apiVersion"], tree["kind"] = api_version, kind
    return Body(tree, _warnings(strict) if field_validation in ("", "Warn") else ())


def _internal(api_version: str) -> str:
    """Return the Go package of a group's internal types."""
    group = api_version.rpartition("/")[0]
    first = group.partition(".")[0]
    return {"": "core", "internal": "apiserverinternal"}.get(first, first)


def _warnings(strict: Sequence[str]) -> list[str]:
    result: list[str] = []
    for complaint in strict:
        if complaint.startswith("yaml: unmarshal errors:\n"):
            result += [line.strip() for line in complaint.split("\n")[1:]]
        else:
            result.append(complaint)
    return result


def _summary(data: bytes) -> str:
    if not data:
        return "<empty>"
    head = data[:_SUMMARY_BYTES]
    shown = head.decode(errors="replace") if data.startswith(b"{") else head.hex()
    return shown + " ..." if len(data) > _SUMMARY_BYTES else shown


# ---- readers: bytes -> (tree, its JSON text for the check, complaints of strict reading)


def _read_json(data: bytes) -> tuple[Any, bytes | None, list[str]]:
    return read_json(data), data, []


def read_json(data: bytes) -> Any:
    """Return JSON as Go reads it; raise Unreadable with Go's complaint, as `couldn't get version/kind` shows it."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        complaint = syntax_error(data)
    except RecursionError:
        complaint = "exceeded max depth"
    if complaint is not None:
        raise Unreadable(f"couldn't get version/kind; json parse error: {complaint}")
    # Well-formed for Go, which takes text that is no UTF-8: it becomes replacement characters.
    tree = json.loads(data.decode("utf-8", "replace"), strict=False)
    return orjson.loads(_surrogate.sub("\ufffd", json.dumps(tree, ensure_ascii=False)))


_surrogate = re.compile("[\ud800-\udfff]")


def _read_yaml(data: bytes) -> tuple[Any, bytes | None, list[str]]:
    try:
        tree, duplicates = yaml.parse(data)
    except yaml.InvalidYAML as error:
        raise Unreadable(str(error)) from None
    complaints = ["yaml: unmarshal errors:\n  " + "\n  ".join(duplicates)] if duplicates else []
    return tree, msgspec.json.encode(tree), complaints


def _read_protobuf(data: bytes) -> tuple[Any, bytes | None, list[str]]:
    try:
        framed = protobuf.unframe(data)
        if not protobuf.has_form(framed.api_version, framed.kind):
            return {"apiVersion": framed.api_version, "kind": framed.kind}, None, []
        return protobuf.decode_message(framed.raw, framed.api_version, framed.kind), None, []
    except protobuf.InvalidProtobuf as error:
        raise Unreadable(str(error)) from None


_READERS = {JSON: _read_json, YAML: _read_yaml, PROTOBUF: _read_protobuf}

_HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
_GO_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


def _names(tree: Any, text: bytes | None, api_version: str, kind: str) -> tuple[str, str]:
    """Return the apiVersion and kind that a tree means; what it leaves out is the endpoint's."""
    if tree is None:
        return api_version, kind
    if not isinstance(tree, dict):
        raise Unreadable(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_GO_KINDS[type(tree)]} into Go value of type {_HEAD}"
        )
    for name in ("apiVersion", "kind"):
        value = tree.get(name)
        if value is not None and not isinstance(value, str):
            raise Unreadable(
                "couldn't get version/kind; json parse error: json: cannot unmarshal "
                f"{_GO_KINDS[type(value)]} into Go struct field .{name} of type string"
            )
    found_version, found_kind = tree.get("apiVersion") or "", tree.get("kind") or kind
    if found_version.count("/") > 1:
        raise Unreadable(f"unexpected GroupVersion string: {found_version}")
    if found_version in ("", "/"):
        found_version = api_version
    return found_version, found_kind
