"""Bodies of requests for custom resources: from JSON or YAML to objects, with pruning and defaults.

Source: the behaviour of apiextensions-apiserver's decoders.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from haven.apimachinery import apierrors
from haven.apimachinery.codecs import yaml
from haven.apimachinery.codecs.negotiate import JSON, PROTOBUF, YAML, body_media_type
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch.dispatch import TYPE_META, refused
from haven.apimachinery.schema.coercion import MalformedObject, coerce, fill_defaults
from haven.apimachinery.schema.explain import repeated_keys
from haven.apimachinery.schema.gojson import lost_keys
from haven.apimachinery.unstructured import Unstructured
from haven.apiserver.customresources.definition import Definition, Version
from haven.apiserver.registry.bodies import parse_json, strict_yaml_error, unrecognized
from haven.apiserver.registry.options import IGNORE, STRICT

__all__ = ["Unpruned", "decode_body", "finished", "from_apply", "from_patch", "whole_numbers"]

Tree = dict[str, Any]
_YAML_ERRORS = "yaml: unmarshal errors:\n  "


def _refuse_number(literal: str) -> Any:
    raise apierrors.BadRequest(f"json: cannot unmarshal number {literal} into Go value of type float64")


def decode_body(
    data: bytes, content_type: str, definition: Definition, version: Version, validation: str, warnings: list[str]
) -> Unstructured:
    """Return the object in a body; raise BadRequest. Its version may be another one: look before you use it."""
    kind = version.resource.kind
    media_type = body_media_type(content_type, (JSON, YAML, PROTOBUF))
    complaints: list[str] = []
    if media_type == PROTOBUF:
        raise unrecognized(kind, "provided data does not appear to be a protobuf message", data)
    if media_type == YAML:
        try:
            tree, repeated = yaml.parse(data)
        except yaml.InvalidYAML as error:
            raise unrecognized(kind, str(error), data) from None
        complaints = [strict_yaml_error(repeated)] if repeated else []
    else:
        tree, data = parse_json(data, kind, huge=_refuse_number)
        if isinstance(tree, dict) and lost_keys(data, orjson.dumps(tree)):
            complaints = repeated_keys(data)
    if tree is not None and not isinstance(tree, dict):
        what = {list: "array", str: "string", bool: "bool"}.get(type(tree), "number")
        text = f"json: cannot unmarshal {what} into Go value of type {TYPE_META}"
        raise unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", data)
    tree = tree or {}
    if _LONG_NUMBER.search(data):
        _floats_beyond_int64(tree)
    for name in ("apiVersion", "kind"):
        if name in tree and not isinstance(tree[name], str):
            what = {list: "array", dict: "object", bool: "bool"}.get(type(tree[name]), "number")
            text = f"json: cannot unmarshal {what} into Go struct field .{name} of type string"
            if tree[name] is not None:
                raise unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", data)
            del tree[name]
    if tree.get("apiVersion", "").count("/") > 1:
        raise unrecognized(kind, f"unexpected GroupVersion string: {tree['apiVersion']}", data)
    if not tree.get("kind"):
        text = f"Object 'Kind' is missing in '{data.decode(errors='replace')}'"
        if validation == IGNORE:
            found = version.name
            raise apierrors.BadRequest(f"{kind} in version {quote(found)} cannot be handled as a {kind}: {text}")
        raise unrecognized(kind, text, data)
    tree.setdefault("apiVersion", "")

    def refuse(text: str) -> apierrors.ApiError:
        found, own = tree.get("apiVersion", "").rpartition("/")[2], tree["kind"]
        wanted = own if text.startswith(_STRICT) else kind  # By then upstream took it for what it says it is.
        return apierrors.BadRequest(f"{own} in version {quote(found)} cannot be handled as a {wanted}: {text}")

    return finished(tree, definition, complaints, validation, warnings, refuse)


_STRICT = "strict decoding error: "
_LONG_NUMBER = re.compile(rb"\d{19}")


def _floats_beyond_int64(value: Any) -> None:
    """Read integers that Go has no type for as floats, in place, as its decoder does."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if type(item) is int:
            if not -(2**63) <= item < 2**63:
                value[key] = float(item)
        elif isinstance(item, dict | list):
            _floats_beyond_int64(item)


def from_patch(
    tree: Any, definition: Definition, complaints: list[str], validation: str, warnings: list[str]
) -> Unstructured:
    """Return the object that a patch made; raise Invalid."""
    if not isinstance(tree, dict):
        raise refused(tree, "json: cannot unmarshal into Go value of type map[string]interface {}")
    if not tree.get("kind") or not isinstance(tree["kind"], str):
        shown = _sorted(tree)
        raise refused(shown, f"Object 'Kind' is missing in '{orjson.dumps(shown).decode()}'")
    shown = _sorted(tree)
    return finished(tree, definition, complaints, validation, warnings, lambda text: refused(shown, text))


def _sorted(tree: Tree) -> Tree:
    """Return a copy with all keys in order, as upstream shows what a patch made."""
    result: Tree = orjson.loads(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS))
    return result


class Unpruned(dict[str, Any]):
    """Content that an apply made: it is checked as it is, and pruned before it is stored."""


def from_apply(tree: Tree, definition: Definition) -> Unstructured:
    """Return the object that an apply made."""
    group, _, name = tree.get("apiVersion", "").rpartition("/")
    version = definition.versions.get(name) if group == definition.group else None
    if version is None or tree.get("kind") != version.resource.kind:
        return finished(tree, definition, [], IGNORE, [], _refuse_metadata)
    fill_defaults(tree, version.open_api)
    try:
        made = Unstructured.from_wire(tree)
    except msgspec.ValidationError:
        return finished(tree, definition, [], IGNORE, [], _refuse_metadata)
    if not definition.preserve_unknown:
        made.content = Unpruned(made.content)
    return made


def _refuse_metadata(text: str) -> apierrors.ApiError:
    return apierrors.Invalid.of(apierrors.GroupKind("", ""), "", [invalid(Path("metadata"), None, text)])


def finished(
    tree: Tree,
    definition: Definition,
    complaints: list[str],
    validation: str,
    warnings: list[str],
    refuse: Callable[[str], apierrors.ApiError],
) -> Unstructured:
    """Prune and default a tree in place and return it as an object; raise what `refuse` makes of a complaint."""
    group, _, name = tree.get("apiVersion", "").rpartition("/")
    version = definition.versions.get(name) if group == definition.group else None
    is_ours = version is not None and tree["kind"] == version.resource.kind
    try:
        unknown = coerce(
            tree,
            version.open_api if version is not None and is_ours else None,
            preserve_unknown=definition.preserve_unknown or not is_ours,
        )
    except MalformedObject as error:
        raise refuse(str(error)) from None
    complaints = complaints + unknown
    if complaints and validation != IGNORE:
        if validation == STRICT:
            raise refuse(f"{_STRICT}{', '.join(complaints)}")
        for text in complaints:
            warnings.extend(text.removeprefix(_YAML_ERRORS).replace("\n  ", "\n").split("\n"))
    if is_ours and version is not None:
        fill_defaults(tree, version.open_api)
    return Unstructured.from_wire(tree)


def whole_numbers(value: Any) -> None:
    """Write floats without a fraction as integers, in place, as Go's encoder does."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if type(item) is float:
            if item.is_integer() and abs(item) < 2**63:
                value[key] = int(item)
        elif isinstance(item, dict | list):
            whole_numbers(item)
