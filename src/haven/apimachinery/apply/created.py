"""The fields of a new object, compared with an empty one of its kind. The way of every create, so it is compiled.

An object of a built-in kind is born with some fields (its `zero`): these are not owned unless their value differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from haven.apimachinery.apply.fieldset import MEMBER, FieldSet, element_of_key, element_of_value, ordered
from haven.apimachinery.apply.typed import elements_of, item_element, whole
from haven.apimachinery.schema.model import UNTYPED, Schema, Shape

__all__ = ["created_fields"]

Emit: TypeAlias = Callable[[Any], FieldSet]


def created_fields(tree: dict[str, Any], schema: Schema) -> FieldSet:
    """Return what whoever creates an object owns, metadata of the server included; raise TypeMismatch."""
    return _against_zero(schema)(tree) or {}


def _whole(schema: Schema) -> Emit | None:
    """Return what makes the node of a value that is new altogether; None if that is always a bare member."""
    shape = schema.shape
    if shape is Shape.LEAF:
        return None
    known: Emit | None = schema.walks.get("whole")
    if known is not None:
        return known
    if shape is Shape.SET:
        emit = _whole_set(schema)
    elif shape is Shape.KEYED:
        return _whole_keyed(schema)
    elif schema.kind == "struct":
        return _whole_struct(schema)
    elif schema.kind == "map" and schema.element is not None and _whole(schema.element) is None:

        def emit(value: Any) -> FieldSet:
            if not value:
                return MEMBER
            node: FieldSet = {".": MEMBER}
            for name in sorted(value) if len(value) > 1 else value:
                node["f:" + name] = MEMBER
            return node

    else:

        def emit(value: Any) -> FieldSet:
            return whole(value, schema)

    schema.walks["whole"] = emit
    return emit


def _whole_set(schema: Schema) -> Emit:
    def emit(value: Any) -> FieldSet:
        if not value:
            return MEMBER
        node: FieldSet = {".": MEMBER}
        for item in value:
            if type(item) is not str:
                elements_of(value, schema)
            node[element_of_value(item)] = MEMBER
        return ordered(node) if len(node) > 2 else node

    return emit


def _whole_keyed(schema: Schema) -> Emit:
    assert schema.element is not None
    inner: list[Emit | None] = []
    single = schema.keys[0] if len(schema.keys) == 1 else None

    def emit(value: Any) -> FieldSet:
        if not value:
            return MEMBER
        node: FieldSet = {".": MEMBER}
        for item in value:
            if single is not None and type(item) is dict and single in item:
                element = element_of_key(single, item[single])
            else:
                element = item_element(item, schema)
            if element in node:
                node[element] = MEMBER
            else:
                node[element] = inner[0](item) if inner[0] else MEMBER
        return ordered(node) if len(node) > 2 else node

    schema.walks["whole"] = emit  # Before the items: types refer to themselves.
    inner.append(_whole(schema.element))
    return emit


def _whole_struct(schema: Schema) -> Emit:
    table: dict[str, tuple[str, Emit | None]] = {}
    plans: dict[tuple[str, ...], _Plan | None] = {}

    def emit(value: Any) -> FieldSet:
        if not value:
            return MEMBER
        names = tuple(value)
        try:
            plan = plans[names]
        except KeyError:
            plan = _remember(plans, names, _plan(names, table))
        if plan is None:
            return whole(value, schema)
        node, inner = plan
        if inner:
            node = node.copy()
            for name, element, fill in inner:
                node[element] = fill(value[name])
        return node

    schema.walks["whole"] = emit  # Before the fields: types refer to themselves.
    for name, field in schema.fields.items():
        table[name] = ("f:" + name, _whole(field.schema))
    return emit


_Plan: TypeAlias = tuple[FieldSet, tuple[tuple[str, str, Emit], ...]]
"""What a struct with certain fields owns, and which of them hold more. Never changed: nodes without more are shared."""
PLANS_MAX = 64


def _plan(names: tuple[str, ...], table: Mapping[str, tuple[str, Emit | None]]) -> _Plan | None:
    """Return the plan of a struct with these fields; None if one of them is not known."""
    if any(name not in table for name in names):
        return None
    found = [(name, *table[name]) for name in sorted(names)]
    node: FieldSet = {".": MEMBER, **{element: MEMBER for _, element, _ in found}}
    return node, tuple([(name, element, fill) for name, element, fill in found if fill is not None])


def _remember(plans: dict[tuple[str, ...], _Plan | None], names: tuple[str, ...], plan: _Plan | None) -> _Plan | None:
    if len(plans) >= PLANS_MAX:
        plans.clear()
    plans[names] = plan
    return plan


def _against_zero(schema: Schema) -> Callable[[Any], FieldSet | None]:
    """Return what makes the node of a struct that is never absent; None from it means no difference."""
    known: Callable[[Any], FieldSet | None] | None = schema.walks.get("created")
    if known is not None:
        return known
    if schema.shape is Shape.LEAF:  # A struct that changes as one.
        zero = schema.zero()

        def atomic(value: Any) -> FieldSet | None:
            return None if value == zero else MEMBER

        schema.walks["created"] = atomic
        return atomic
    table: dict[str, tuple[str, Callable[[Any], FieldSet | None] | None]] = {}
    extension = schema.element

    def emit(value: Any) -> FieldSet | None:
        node: FieldSet = {}
        for name in sorted(value):
            found = table.get(name)
            if found is None:
                node["f:" + name] = whole(value[name], extension if extension is not None else UNTYPED)
                continue
            element, inner = found
            if inner is None:
                node[element] = MEMBER
            else:
                made = inner(value[name])
                if made is not None:
                    node[element] = made
        return node or None

    schema.walks["created"] = emit  # Before the fields: types refer to themselves.
    for name, field in schema.fields.items():
        inner: Callable[[Any], FieldSet | None] | None
        if not field.always:
            inner = _whole(field.schema)
        elif field.pointer or field.zero is None:
            inner = _from_null(field.schema)
        elif field.schema.kind == "struct":
            inner = _against_zero(field.schema)
        else:
            inner = _from_scalar(field.zero)
        table[name] = ("f:" + name, inner)
    return emit


def _from_null(schema: Schema) -> Callable[[Any], FieldSet | None]:
    """The field was there and null: what fills it is new, the field itself is not."""
    fill = _whole(schema)

    def emit(value: Any) -> FieldSet | None:
        if value is None:
            return None
        if fill is None:
            return MEMBER
        node = fill(value)
        if "." in node:
            node = {element: inner for element, inner in node.items() if element != "."}
        return node

    return emit


def _from_scalar(zero: Any) -> Callable[[Any], FieldSet | None]:
    return lambda value: None if value == zero else MEMBER
