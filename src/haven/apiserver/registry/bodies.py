"""Request bodies: from JSON, YAML or protobuf to the typed object that an endpoint expects.

Types and unknown fields are checked by the schema engine, which words every complaint as upstream's decoders do; only
then are bytes turned into structs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import orjson

from haven.api import scheme
from haven.api.retired import is_retired
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.codecs import protobuf, yaml
from haven.apimachinery.codecs.negotiate import JSON, PROTOBUF, YAML, body_media_type
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch.dispatch import NO_KIND, TYPE_META, json_kind
from haven.apimachinery.schema import Schema, check, normalize
from haven.apimachinery.schema.gojson import readable, syntax_error
from haven.apiserver.registry.options import IGNORE, STRICT
from haven.apiserver.request import Request

__all__ = [
    "decode_delete_options",
    "decode_object",
    "given_tree",
    "parse_json",
    "strict_yaml_error",
    "typed",
    "unrecognized",
]

_SCHEME = 'in scheme "pkg/api/legacyscheme/scheme.go:30"'
_EMPTIES = (b"{}", b"[]", b'""')
_INT64 = 2**63
_SUMMARY_BYTES = 30
_YAML_ERRORS = "yaml: unmarshal errors:\n  "


def decode_object(
    data: bytes, header: str, expected: GroupVersionKind, schema: Schema, validation: str, warnings: list[str]
) -> Any:
    """Return the body as a tree of the expected kind; raise BadRequest.

    `validation` is Strict, Warn or Ignore; warnings are added to `warnings`.
    """
    media_type = body_media_type(header)
    if media_type == PROTOBUF:
        return _from_protobuf(data, expected)
    strict: list[str] = []
    if media_type == YAML:
        try:
            tree, repeated = yaml.parse(data)
        except yaml.InvalidYAML as error:
            raise unrecognized(expected.kind, str(error), data) from None
        tree = _in_order(tree)
        strict = [strict_yaml_error(repeated)] if repeated else []
        text = None
    else:
        tree, text = parse_json(data, expected.kind)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        what = "array" if isinstance(tree, list) else {str: "string", bool: "bool"}.get(type(tree), "number")
        complaint = f"json: cannot unmarshal {what} into Go value of type {TYPE_META}"
        raise unrecognized(expected.kind, f"couldn't get version/kind; json parse error: {complaint}", data)
    gvk = _kind_of(tree, expected, data)
    if gvk != expected:
        _refuse_kind(gvk, expected)
    return typed(tree, expected, schema, validation, warnings, text=text, strict=strict)


def typed(
    tree: dict[str, Any],
    expected: GroupVersionKind,
    schema: Schema,
    validation: str,
    warnings: list[str],
    *,
    text: bytes | None,
    strict: list[str],
) -> dict[str, Any]:
    """Return the canonical form of a tree that claims to be of the expected kind; raise BadRequest."""
    findings = check(tree, schema, text)
    if findings.error is not None:
        raise _not_handled(expected, expected, findings.error)
    complaints = strict + findings.strict
    if complaints and validation != IGNORE:
        if validation == STRICT:
            raise _not_handled(expected, expected, f"strict decoding error: {', '.join(complaints)}")
        for complaint in complaints:
            warnings.extend(complaint.removeprefix(_YAML_ERRORS).replace("\n  ", "\n").split("\n"))
    if findings.tree is not None:
        tree = findings.tree
    if findings.unfit:
        tree = normalize(tree, schema)
    tree["kind"], tree["apiVersion"] = expected.kind, expected.api_version
    return tree


def _in_order(tree: Any) -> Any:
    """Return a tree with its keys sorted: upstream reads YAML through a map, so complaints come in this order."""
    if isinstance(tree, dict):
        return {key: _in_order(tree[key]) for key in sorted(tree)}
    return [_in_order(item) for item in tree] if isinstance(tree, list) else tree


def strict_yaml_error(lines: list[str]) -> str:
    """Return complaints about YAML, such as repeated keys, as one error."""
    return _YAML_ERRORS + "\n  ".join(lines)


def _from_protobuf(data: bytes, expected: GroupVersionKind) -> dict[str, Any]:
    try:
        framed = protobuf.unframe(data)
        group, _, version = framed.api_version.rpartition("/")
        gvk = expected
        if framed.api_version or framed.kind:
            gvk = GroupVersionKind(
                group if framed.api_version else expected.group,
                version or expected.version,
                framed.kind or expected.kind,
            )
        if gvk != expected:
            _refuse_kind(gvk, expected)
    except protobuf.InvalidProtobuf as error:
        raise unrecognized(expected.kind, str(error), data) from None
    try:
        return protobuf.decode_message(framed.raw, expected.api_version, expected.kind)
    except protobuf.InvalidProtobuf as error:
        raise _not_handled(gvk, expected, str(error)) from None


def parse_json(data: bytes, kind: str, *, huge: Callable[[str], Any] = lambda text: math.inf) -> tuple[Any, bytes]:
    """Return (a body's JSON, its text as it was read); raise BadRequest.

    `huge` tells what to make of numbers that no double can hold: by default one that fits no field.
    """
    try:
        return orjson.loads(data), data
    except orjson.JSONDecodeError:
        complaint = syntax_error(data)
        if complaint is None:
            text = readable(data)
            try:
                return serialization.decode_tree(text), text
            except ValueError:
                return _with_huge_numbers(text, huge), text
        raise unrecognized(kind, f"couldn't get version/kind; json parse error: {complaint}", data) from None


def _with_huge_numbers(text: bytes, huge: Callable[[str], Any]) -> Any:
    def read(literal: str) -> Any:
        if math.isinf(number := float(literal)):
            return huge(literal)
        return int(literal) if -_INT64 <= number < _INT64 and literal.lstrip("-").isdigit() else number

    try:
        return json.loads(text, parse_int=read, parse_float=read)
    except RecursionError:
        raise apierrors.BadRequest("exceeded max depth") from None


def _kind_of(tree: dict[str, Any], expected: GroupVersionKind, data: bytes) -> GroupVersionKind:
    """Return what the body says it is; what it does not say is as expected."""
    kind, api_version = tree.get("kind"), tree.get("apiVersion")
    for name, value in (("apiVersion", api_version), ("kind", kind)):
        if value is not None and not isinstance(value, str):
            what = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else (
                "bool" if isinstance(value, bool) else "number"
            )  # fmt: skip
            complaint = f"json: cannot unmarshal {what} into Go struct field .{name} of type string"
            raise unrecognized(expected.kind, f"couldn't get version/kind; json parse error: {complaint}", data)
    if not api_version:
        return GroupVersionKind(expected.group, expected.version, kind or expected.kind)
    group, _, version = api_version.rpartition("/")
    if "/" in group:
        raise unrecognized(expected.kind, f"unexpected GroupVersion string: {api_version}", data)
    return GroupVersionKind(group, version, kind or expected.kind)


def _refuse_kind(gvk: GroupVersionKind, expected: GroupVersionKind) -> None:
    """Raise what upstream says about a body of another kind or version."""
    known = _is_known(gvk)
    if not known:
        text = f"no kind {quote(gvk.kind)} is registered for version {quote(gvk.api_version)} {_SCHEME}"
        raise _not_handled(gvk, expected, text)
    if (gvk.group, gvk.version) != (expected.group, expected.version) and gvk.kind == expected.kind:
        raise apierrors.BadRequest(
            f"the API version in the data ({gvk.api_version}) does not match the expected API version "
            f"({expected.api_version})"
        )
    internal = (expected.group.split(".")[0] or "core") if expected.group else "core"
    package = gvk.version
    raise _not_handled(
        gvk, expected, f"converting ({package}.{gvk.kind}) to ({internal}.{expected.kind}): unknown conversion"
    )


_META_KINDS = {
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "UpdateOptions",
    "WatchEvent",
}
_UNVERSIONED_KINDS = {"APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "List", "Status"}


def _is_known(gvk: GroupVersionKind) -> bool:
    if gvk.kind in _META_KINDS or ((gvk.group, gvk.version) == ("", "v1") and gvk.kind in _UNVERSIONED_KINDS):
        return True
    if is_retired(gvk.group, gvk.version, gvk.kind):
        return True
    try:
        scheme.kind_type(gvk.group, gvk.version, gvk.kind)
    except KeyError:
        return False
    return True


def _not_handled(gvk: GroupVersionKind, expected: GroupVersionKind, because: str) -> apierrors.BadRequest:
    return apierrors.BadRequest(
        f"{gvk.kind} in version {quote(gvk.version)} cannot be handled as a {expected.kind}: {because}"
    )


def unrecognized(kind: str, because: str, data: bytes) -> apierrors.BadRequest:
    """Return the refusal of a body that tells no kind, or none at all."""
    return apierrors.BadRequest(
        f"the object provided is unrecognized (must be of type {kind}): {because} ({_summary(data)})"
    )


def _summary(data: bytes) -> str:
    if not data:
        return "<empty>"
    if data[:1] == b"{":
        text = data[:_SUMMARY_BYTES].decode(errors="replace")
        return text + " ..." if len(data) > _SUMMARY_BYTES else text
    if len(data) > _SUMMARY_BYTES:
        return data[:_SUMMARY_BYTES].hex() + " ..."
    return data.hex()


def decode_delete_options(data: bytes, header: str) -> meta.DeleteOptions | None:
    """Return the options in the body of a delete, None if there is no body; raise BadRequest."""
    if not data:
        return None
    media_type = body_media_type(header)
    if media_type == PROTOBUF:
        try:
            framed = protobuf.unframe(data)
            if framed.kind not in ("", "DeleteOptions"):
                raise _no_options(framed.kind, framed.api_version)
            tree: Any = protobuf.decode_message(framed.raw, "meta.k8s.io/v1", "DeleteOptions")
        except protobuf.InvalidProtobuf as error:
            raise apierrors.BadRequest(str(error)) from None
    elif media_type == JSON:
        try:
            tree = orjson.loads(data)
        except orjson.JSONDecodeError:
            complaint = syntax_error(data)
            if complaint is not None:
                raise apierrors.BadRequest(f"couldn't get version/kind; json parse error: {complaint}") from None
            data = readable(data)
            tree = serialization.decode_tree(data)
    else:
        try:
            tree, _ = yaml.parse(data)
        except yaml.InvalidYAML as error:
            raise apierrors.BadRequest(str(error)) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        complaint = f"json: cannot unmarshal {json_kind(tree)} into Go value of type {TYPE_META}"
        raise apierrors.BadRequest(NO_KIND + complaint)
    kind = tree.get("kind") or "DeleteOptions"
    api_version = tree.get("apiVersion") or "meta.k8s.io/v1"
    if kind != "DeleteOptions":
        if api_version == "v1" and kind in _UNVERSIONED_KINDS - {"List"}:
            raise apierrors.BadRequest(f"converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion")
        raise _no_options(str(kind), str(api_version))
    from haven.apimachinery.schema import schema_named

    schema = schema_named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
    findings = check(tree, schema, data if media_type == JSON else None)
    if findings.error is not None:
        raise apierrors.BadRequest(findings.error)
    return serialization.convert(normalize(tree, schema), meta.DeleteOptions)


def _no_options(kind: str, api_version: str) -> apierrors.BadRequest:
    scheme_name = "pkg/apis/meta/internalversion/scheme/register.go:27"
    text = f"no kind {quote(kind)} is registered for version {quote(api_version)} in scheme {quote(scheme_name)}"
    return apierrors.BadRequest(text)


def given_tree(request: Request) -> Any:
    """Return the JSON of a body that gives something as empty; None if it does not, or is in another format."""
    if request.method == "PATCH" or not any(empty in request.body for empty in _EMPTIES):
        return None  # Nor does protobuf tell.
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return None
