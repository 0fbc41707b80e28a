"""Whether an applied configuration has the form that its type asks for, in upstream's words."""

from __future__ import annotations

from typing import Any

from haven.apimachinery.apply.fieldset import element_text
from haven.apimachinery.apply.typed import TypeMismatch, child_schema, item_element
from haven.apimachinery.goformat import quote, show
from haven.apimachinery.schema.check import JSON_SCHEMA_PROPS
from haven.apimachinery.schema.model import Schema, Shape

__all__ = ["check_form", "complaints", "validate"]

_NUMBERS = {"int", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float64"}
_STRINGS = {"string", "bytes", "duration"}
_ANY_SCALAR = {"time", "micro_time"}
_ANY_JSON = {"default", "enum", "example"}
"""Fields of a schema in a CustomResourceDefinition that hold values of its type, whatever that is."""
_GO_TYPES = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool"}


def validate(tree: Any, schema: Schema) -> None:
    """Raise TypeMismatch with all complaints about an applied tree, repeated list items included."""
    _refuse(complaints(tree, schema))


def check_form(tree: Any, schema: Schema) -> None:
    """Raise TypeMismatch with all complaints about a custom resource that is, or is about to be stored.

    Built-in kinds have their form; nobody checked that of custom resources yet. Items may be repeated.
    """
    if not schema.definition:
        found: list[tuple[str, str]] = []
        _walk(tree, schema, "", found, repeats=True)
        _refuse([f"{path}: {message}" if path else message for path, message in found])


def _refuse(found: list[str]) -> None:
    if len(found) == 1:
        raise TypeMismatch(found[0])
    if found:
        raise TypeMismatch("\n".join(["errors:", *(f"  {text}" for text in found)]))


def complaints(tree: Any, schema: Schema) -> list[str]:
    """Return "path: complaint" of everything that does not fit."""
    found: list[tuple[str, str]] = []
    _walk(tree, schema, "", found)
    return [f"{path}: {message}" if path else message for path, message in found]


def _walk(value: Any, schema: Schema, path: str, found: list[tuple[str, str]], *, repeats: bool = False) -> None:
    kind = schema.kind
    if value is None:
        return
    if kind in ("struct", "map"):
        _walk_map(value, schema, path, found, repeats=repeats)
    elif kind == "list":
        _walk_list(value, schema, path, found, repeats=repeats)
    elif kind in _NUMBERS:
        if type(value) not in (int, float):
            found.append((path, f"expected numeric (int or float), got {_GO_TYPES[type(value)]}"))
    elif kind in _STRINGS:
        if type(value) is not str:
            found.append((path, f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"))
    elif kind == "bool":
        if type(value) is not bool:
            found.append((path, f"expected boolean, got &{{{show(value)}}}"))
    elif kind in _ANY_SCALAR:
        if type(value) in (dict, list):
            found.append((path, f"expected any scalar, got &{{{show(value)}}}"))
    elif kind == "raw" and type(value) is not dict:
        found.append((path, f"expected map, got &{{{show(value)}}}"))


def _walk_map(value: Any, schema: Schema, path: str, found: list[tuple[str, str]], *, repeats: bool) -> None:
    if type(value) is not dict:
        found.append((path, f"expected map, got &{{{show(value)}}}"))
        return
    for name, item in value.items():
        if name in _ANY_JSON and schema.definition == JSON_SCHEMA_PROPS:
            continue
        if name not in schema.fields and schema.element is None and not schema.preserve:
            found.append((f"{path}.{name}", "field not declared in schema"))
            return
        _walk(item, child_schema(schema, name), f"{path}.{name}", found, repeats=repeats)


def _walk_list(value: Any, schema: Schema, path: str, found: list[tuple[str, str]], *, repeats: bool) -> None:
    if type(value) is not list:
        found.append((path, f"expected list, got &{{{show(value)}}}"))
        return
    assert schema.element is not None
    seen: set[str] = set()
    for index, item in enumerate(value):
        if schema.shape is Shape.LEAF:
            text = f"[{index}]"
        else:
            try:
                element = item_element(item, schema)
            except TypeMismatch as error:
                found.append((path, f"element {index}: {error.message}"))
                return
            text = element_text(element)
            if element in seen and not repeats:
                found.append((path, f"duplicate entries for key {text}"))
            seen.add(element)
        _walk(item, schema.element, path + text, found, repeats=repeats)


def _go_syntax(value: Any) -> str:
    """A value as Go's %#v prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{quote(name)}:{_go_syntax(value[name])}" for name in sorted(value))
        return f"map[string]interface {{}}{{{inner}}}"
    if isinstance(value, bytes):
        return f"[]uint8{{{', '.join(f'{one:#x}' for one in value)}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
    return "interface {}(nil)" if value is None else show(value)
