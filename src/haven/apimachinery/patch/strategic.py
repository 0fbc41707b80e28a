"""Strategic merge patch: lists of built-in kinds merge by key, and directives in the patch say the rest.

$patch: replace, delete or merge; $deleteFromPrimitiveList/<list>; $setElementOrder/<list>; $retainKeys.
Source: https://git.k8s.io/community/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote, show, show_text
from haven.apimachinery.patch.errors import PatchError, internal, unprocessable
from haven.apimachinery.schema.model import Schema

__all__ = ["GO_TYPES", "apply"]

_DIRECTIVE = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList"
_SET_ORDER = "$setElementOrder"
_BAD_RETAIN_KEYS = "invalid patch format of retainKeys"
_BAD_ORDER = "invalid patch format of setElementOrder list"
_BAD_PRIMITIVE_LIST = "invalid patch format of primitive list"

Tree = dict[str, Any]


def apply(original: Tree, patch: Tree, schema: Schema) -> Tree:
    """Return the merged tree; raise the ApiError that upstream answers with. Both inputs are changed: pass copies."""
    return _merge_map(original, patch, schema)


class _Meta(NamedTuple):
    schema: Schema
    strategy: str  # merge, replace or ""
    merge_key: str


def _lookup(schema: Schema, name: str) -> _Meta:
    """Return the declared field that a member of an object is."""
    if schema.kind not in ("struct", "raw", "any"):
        kind = {"list": "slice", "bytes": "slice"}.get(schema.kind, schema.kind)
        raise internal(f"merging an object in json but data type is not struct, instead is: {kind}")
    field = schema.fields.get(name)
    if field is None:
        folded = name.casefold()
        field = next((field for other, field in schema.fields.items() if other.casefold() == folded), None)
    if field is None:
        owner = schema.go.rpartition(".")[2]
        raise internal(f"unable to find api field in struct {owner} for the json field {quote(name)}")
    strategies = [strategy for strategy in field.strategies if strategy != "retainKeys"]
    return _Meta(field.schema, strategies[0] if strategies else "", field.merge_key)


def _lookup_list(schema: Schema, name: str) -> _Meta:
    found = _lookup(schema, name)
    if found.schema.kind == "bytes" or found.schema.element is None or found.schema.kind != "list":
        raise internal("expected slice or array type, but got: struct")
    if found.schema.element.kind == "list":
        raise internal("unexpected slice of slice")
    return found._replace(schema=found.schema.element)


GO_TYPES = {
    dict: "map[string]interface {}", list: "[]interface {}", str: "string", int: "int64", float: "float64",
    bool: "bool", type(None): "%!s(<nil>)",
}  # fmt: skip


def _bad_type(expected: type, actual: Any) -> apierrors.ApiError:
    return internal(f"expected a {GO_TYPES[expected]}, but received a {GO_TYPES[type(actual)]}")


def _no_merge_key(item: Tree, key: str) -> apierrors.ApiError:
    return internal(f"map: {show(item)} does not contain declared merge key: {key}")


def _bad_directive(directive: Any, where: Tree) -> apierrors.ApiError:
    return internal(f"unknown patch type: {show_text(directive)} in map: {show(where)}")


def _merge_map(original: Tree, patch: Tree, schema: Schema) -> Tree:
    if _DIRECTIVE in patch:
        directive = patch[_DIRECTIVE]
        if directive == "replace":
            del patch[_DIRECTIVE]
            return patch
        if directive == "delete":
            return {}
        raise _bad_directive(directive, patch)
    _retain_keys(original, patch)
    _apply_orders(original, patch, schema)
    for name, value in list(patch.items()):
        deleting = name.startswith(_DELETE_FROM)
        if deleting:
            name = _after_prefix(name, _DELETE_FROM, _BAD_PRIMITIVE_LIST)
        if value is None:
            original.pop(name, None)
            continue
        if name not in original or type(original[name]) is not type(value):
            if not deleting:
                _discard_nulls(value)
                _keep(original, name, value)
            continue
        if type(value) is dict:
            found = _lookup(schema, name)
            if found.strategy == "replace":
                original[name] = value
            else:
                original[name] = _merge_map(original[name], value, found.schema)
        elif type(value) is list:
            found = _lookup_list(schema, name)
            if found.strategy == "merge" or deleting:
                original[name] = _merge_list(original[name], value, found, deleting)
            else:
                original[name] = value
        else:
            original[name] = value
    return original


def _keep(original: Tree, name: str, value: Any) -> None:
    kept, keep = _without_directives(value)
    if keep:
        original[name] = kept
    else:
        original.pop(name, None)


def _retain_keys(original: Tree, patch: Tree) -> None:
    if _RETAIN_KEYS not in patch:
        return
    retained = patch.pop(_RETAIN_KEYS)
    if not isinstance(retained, list):
        raise apierrors.BadRequest(_BAD_RETAIN_KEYS)
    for name, value in patch.items():
        if value is None or name.startswith((_DELETE_FROM, _SET_ORDER)):
            continue
        if name not in retained:
            raise apierrors.BadRequest(_BAD_RETAIN_KEYS)
    for name in list(original):
        if name not in retained:
            del original[name]


def _apply_orders(original: Tree, patch: Tree, schema: Schema) -> None:
    """Merge the lists that $setElementOrder names, in that order, and take them out of the patch."""
    for key in [name for name in patch if name.startswith(_SET_ORDER)]:
        order = patch.pop(key)
        if not isinstance(order, list):
            raise _bad_type(list, order)
        name = _after_prefix(key, _SET_ORDER, _BAD_ORDER)
        in_original, in_patch = name in original, name in patch
        originals, patches = original.get(name, []), patch.get(name, [])
        for items in (originals, patches):
            if not isinstance(items, list):
                raise _bad_type(list, items)
        found = _lookup_list(schema, name)
        _check_order(patches, order, found.merge_key)
        live_order = originals
        if not in_original and not in_patch:
            continue
        if not in_patch:
            merged = originals
        elif not in_original:
            merged = _without_directives(patches)[0]
        elif found.strategy == "merge":
            is_map = _element_type(originals, patches) is dict if originals or patches else False
            live_order = _order_left_behind(originals, patches, found.merge_key) if is_map else originals
            merged = _merge_list(originals, patches, found, deleting=False)
        else:
            merged = patches
        listed, others = _partition(merged, order, found.merge_key)
        is_map = _element_type(originals, patches) is dict
        original[name] = _ordered(listed, others, order, live_order, found.merge_key, is_map)
        patch.pop(name, None)


def _order_left_behind(originals: list[Any], patches: list[Any], key: str) -> list[Any]:
    """Return the live order as upstream sees it after a merge, which overwrites the places that deletions free.

    An accident of upstream's, but it decides where new items go.
    """
    left = list(originals)
    size = len(left)
    for item in patches:
        if item.get(_DIRECTIVE) == "delete" and key in item:
            while (place := _find(left[:size], item[key], key)) >= 0:
                left[place : size - 1] = left[place + 1 : size]
                size -= 1
    if any(item.get(_DIRECTIVE) == "replace" for item in patches):
        return left
    for item in patches:
        if size == len(left):
            break
        if _DIRECTIVE not in item and key in item and _find(left[:size], item[key], key) < 0:
            left[size] = item
            size += 1
    return left


def _after_prefix(key: str, prefix: str, complaint: str) -> str:
    head, slash, rest = key.partition("/")
    if not slash or head != prefix:
        raise apierrors.BadRequest(complaint)
    return rest


def _check_order(patches: list[Any], order: list[Any], key: str) -> None:
    """The patch's items must come in the order of the $setElementOrder list, which must name them all."""
    if not order or not patches:
        return
    items = _split_deletions(patches)[0] if key else patches
    at = place = 0
    while at < len(items) and place < len(order):
        if isinstance(items[at], dict) and _DIRECTIVE in items[at]:
            at += 1
            continue
        if _same_key(items[at], order[place], key):
            at += 1
        place += 1
    if at < len(items) and place >= len(order):
        raise internal(f"The order in patch list:\n{show(patches)}\n doesn't match {_SET_ORDER} list:\n{show(order)}\n")


def _same_key(one: Any, other: Any, key: str) -> bool:
    if not key:
        return bool(_identity(one) == _identity(other))
    for item in (one, other):
        if not isinstance(item, dict):
            raise _bad_type(dict, item)
        if key not in item:
            raise _no_merge_key(item, key)
    return bool(_identity(one[key]) == _identity(other[key]))


def _identity(value: Any) -> Any:
    """Tell 1, 1.0 and true apart."""
    return (type(value), value) if isinstance(value, int | float) else value


def _split_deletions(items: list[Any]) -> tuple[list[Any], list[Any]]:
    kept: list[Any] = []
    deletions: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            raise _bad_type(dict, item)
        (deletions if item.get(_DIRECTIVE) == "delete" else kept).append(item)
    return kept, deletions


def _element_type(*lists: list[Any]) -> type:
    kinds = [type(item) for items in lists for item in items]
    if not kinds:
        raise internal("no elements in any of the given slices")
    if kinds[0] is list:
        raise unprocessable(PatchError("lists of lists are not supported"))
    if any(kind is not kinds[0] for kind in kinds):
        raise internal(f"list element types are not identical: {show(list(lists))}")
    return kinds[0]


def _merge_list(original: list[Any], patch: list[Any], meta: _Meta, deleting: bool) -> list[Any]:
    if not original and not patch:
        return original
    is_map = _element_type(original, patch) is dict
    key = meta.merge_key
    if not is_map:
        if deleting:
            gone = [_identity(item) for item in patch]
            return [item for item in original if _identity(item) not in gone]
        merged = _deduplicated(original + patch)
    else:
        if not key:
            kind = {"list": "slice"}.get(meta.schema.kind, meta.schema.kind)
            raise internal(f"cannot merge lists without merge key for {kind}")
        original, patch = _apply_directives(original, patch, key)
        merged = _merge_items(original, patch, key, meta.schema)
    listed, others = _partition(merged, patch, key)
    return _ordered(listed, others, patch, original, key, is_map)


def _apply_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    plain = []
    replacing = False
    for item in patch:
        if _DIRECTIVE not in item:
            plain.append(item)
            continue
        directive = item[_DIRECTIVE]
        if directive == "delete":
            if key not in item:
                raise _no_merge_key(item, key)
            gone = _identity(item[key])
            original = [kept for kept in original if not (key in kept and _identity(kept[key]) == gone)]
        elif directive == "replace":
            replacing = True
        elif directive == "merge":
            raise internal("merging lists cannot yet be specified in the patch")
        else:
            raise _bad_directive(directive, item)
    return (plain, []) if replacing else (original, plain)


def _merge_items(original: list[Any], patch: list[Any], key: str, schema: Schema) -> list[Any]:
    merged = list(original)
    for item in patch:
        if key not in item:
            raise _no_merge_key(item, key)
        place = _find(merged, item[key], key)
        if place >= 0:
            merged[place] = _merge_map(merged[place], item, schema)
        else:
            merged.append(item)
    return merged


def _find(items: list[Any], value: Any, key: str) -> int:
    wanted = _identity(value)
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise internal(f"value for key {place} is not a map")
        if key in item and _identity(item[key]) == wanted:
            return place
    return -1


def _deduplicated(items: list[Any]) -> list[Any]:
    """Drop repetitions the way upstream does: the last item takes a dropped one's place."""
    items = list(items)
    last = len(items) - 1
    i = 0
    while i < last:
        j = i + 1
        while j <= last:
            if _identity(items[i]) == _identity(items[j]):
                items[j] = items[last]
                items.pop()
                last -= 1
                j -= 1
            j += 1
        i += 1
    return items


def _partition(items: list[Any], by: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Return (items that `by` names, the others)."""
    listed: list[Any] = []
    others: list[Any] = []
    if not key:
        named = [_identity(item) for item in by]
        for item in items:
            (listed if _identity(item) in named else others).append(item)
        return listed, others
    for item in items:
        if not isinstance(item, dict):
            raise _bad_type(dict, item)
        if key not in item:
            raise _no_merge_key(item, key)
        (listed if _find(by, item[key], key) >= 0 else others).append(item)
    return listed, others


def _ordered(
    listed: list[Any], others: list[Any], order: list[Any], live_order: list[Any], key: str, is_map: bool
) -> list[Any]:
    """Interleave the listed items (in their order) with the others (in the live order), by the live order."""
    listed = _sorted(listed, order, key, is_map)
    others = _sorted(others, live_order, key, is_map)
    places = {id(item): _index(live_order, item, key, is_map) for item in (*listed, *others)}
    result: list[Any] = []
    i = j = 0
    while i < len(others) or j < len(listed):
        if j >= len(listed):
            result.append(others[i])
            i += 1
        elif i >= len(others):
            result.append(listed[j])
            j += 1
        elif 0 <= places[id(others[i])] < places[id(listed[j])]:
            result.append(others[i])
            i += 1
        else:
            result.append(listed[j])
            j += 1
    return result


def _sorted(items: list[Any], order: list[Any], key: str, is_map: bool) -> list[Any]:
    deletions: list[Any] = []
    if is_map:
        for item in (*items, *order):
            if not isinstance(item, dict):
                raise _bad_type(dict, item)
            if key not in item:
                raise _no_merge_key(item, key)
        items, deletions = _split_deletions(items)
    return sorted(items, key=lambda item: _index(order, item, key, is_map)) + deletions


def _index(order: list[Any], item: Any, key: str, is_map: bool) -> int:
    wanted = _identity(item.get(key) if is_map else item)
    for place, other in enumerate(order):
        if _identity(other.get(key) if is_map and isinstance(other, dict) else other) == wanted:
            return place
    return -1


def _without_directives(value: Any) -> tuple[Any, bool]:
    """Return (the value without what carries $patch, whether to keep it at all)."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None, False
        for name in list(value):
            kept, keep = _without_directives(value[name])
            if keep:
                value[name] = kept
            else:
                del value[name]
        return value, True
    if isinstance(value, list):
        return [kept for kept, keep in map(_without_directives, value) if keep], True
    return value, True


def _discard_nulls(value: Any) -> None:
    if isinstance(value, dict):
        for name in list(value):
            if value[name] is None:
                del value[name]
            else:
                _discard_nulls(value[name])
    elif isinstance(value, list):
        for item in value:
            _discard_nulls(item)
