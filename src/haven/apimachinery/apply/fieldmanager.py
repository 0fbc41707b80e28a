"""Server-side apply and the bookkeeping of every other write: who owns which field.

`update` runs on every create, update and patch and only computes managedFields. `apply` merges an applied
configuration into the live object, finds conflicts and removes what its manager no longer applies.
Trees are canonical (as upstream would encode them, defaults included), with apiVersion and kind.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from haven.apimachinery import apierrors, meta
from haven.apimachinery.apply import validate as validation
from haven.apimachinery.apply.created import created_fields
from haven.apimachinery.apply.fieldset import (
    FieldSet,
    difference,
    element_text,
    has,
    intersection,
    members,
    of_paths,
    union,
)
from haven.apimachinery.apply.managers import (
    InvalidManagedFields,
    Managed,
    Manager,
    Owned,
    cap,
    decode,
    encode,
    manager_of,
)
from haven.apimachinery.apply.reset import Reset
from haven.apimachinery.apply.typed import (
    Comparison,
    TypeMismatch,
    alike,
    compare,
    ensure_named,
    field_set,
    merge,
    reconcile,
    remove_items,
)
from haven.apimachinery.schema.check import fits
from haven.apimachinery.schema.model import Schema
from haven.apimachinery.schema.normalize import normalize
from haven.apimachinery.schema.restore import RestoreError, restore

__all__ = ["Converter", "Result", "apply", "keep_timestamps", "update"]

Tree = dict[str, Any]
Entry = dict[str, Any]

Converter = Callable[[Tree, str], tuple[Tree, Schema] | None]
"""Returns a tree in another API version, with its schema; None if the version is not served (any more)."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ANNOTATIONS_BYTES_MAX = 256 * 1024
BEFORE_FIRST_APPLY = "before-first-apply"
_STRIPPED = of_paths(
    ("apiVersion",), ("kind",), ("metadata",),
    *(("metadata", name) for name in ("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName",
                                      "generation", "managedFields", "resourceVersion")),
)  # fmt: skip


@dataclass(slots=True)
class Result:
    """What an apply makes: the merged tree, managedFields included, and whether anything but them changed."""

    tree: Tree
    changed: bool


def update(
    live: Tree | None,
    new: Tree,
    schema: Schema,
    manager: str,
    *,
    now: str,
    subresource: str = "",
    reset: Reset | None = None,
    convert: Converter | None = None,
) -> list[Entry]:
    """Return the managedFields of an object that is about to be created or updated; [] means none.

    `new` may carry managedFields of the client's; live's are taken where those are missing or make no sense, and an
    empty list, or a list of one empty entry, gives up all ownership. `live` is None for a create. Upstream drops the
    managedFields of an object whose lists have items without keys, and so does this.
    """
    managed = _managed_of(live, new, subresource)
    if not managed and live is not None:
        return []  # Ownership is not tracked from here on, until somebody applies.
    try:
        managed = _updated(live, new, managed, schema, manager, now, subresource, reset, convert)
    except TypeMismatch:
        return []
    return encode(managed)


def _managed_of(live: Tree | None, new: Tree, subresource: str) -> Managed:
    own = new["metadata"].get("managedFields") if "metadata" in new else None
    before = live["metadata"].get("managedFields") if live is not None else None
    if not subresource and own is not None and own is not before:
        if own == [] or own == [{}]:
            return {}
        if own != before:
            try:
                managed = decode(own, trusted=False)
            except InvalidManagedFields:
                managed = {}
            if managed:
                return managed
    try:
        return decode(before, trusted=True)
    except InvalidManagedFields:
        return {}


def _updated(
    live: Tree | None,
    new: Tree,
    managed: Managed,
    schema: Schema,
    manager: str,
    now: str,
    subresource: str,
    reset: Reset | None,
    convert: Converter | None,
) -> Managed:
    version = new["apiVersion"]
    me = manager_of(manager, "Update", version, subresource)
    _check_form(new, schema, "new")
    if live is not None:
        _check_form(live, schema, "live")
    if live is None and not managed:
        own = difference(created_fields(new, schema), _STRIPPED)
        if reset is not None:
            own = reset.filter(own)
        return {me: Owned(own, version, now)} if own else {}
    managed = _reconciled(managed, schema)
    old = _zero(new, schema) if live is None else live
    managed, comparison = _without_changed(managed, old, new, schema, version, reset, convert)
    own = union(comparison.modified or {}, comparison.added or {})
    own = difference(own, _STRIPPED)
    if own:
        previous = managed.get(me)
        managed[me] = Owned(union(own, previous.fields) if previous else own, version, now)
    return cap(managed)


def _check_form(tree: Tree, schema: Schema, what: str) -> None:
    try:
        validation.check_form(tree, schema)
    except TypeMismatch as error:
        raise TypeMismatch(f"failed to convert {what} object ({_named(tree)}) to smd typed: {error}") from None


def _named(tree: Tree) -> str:
    metadata = tree.get("metadata")
    return f"{_text(metadata, 'namespace')}/{_text(metadata, 'name')}; {tree['apiVersion']}, Kind={tree['kind']}"


def _zero(new: Tree, schema: Schema) -> Tree:
    """Return the object that a create starts from."""
    zero = schema.zero() if schema.kind == "struct" and schema.definition else {}
    return {"apiVersion": new["apiVersion"], "kind": new["kind"], "metadata": {}, **zero}


def _reconciled(managed: Managed, schema: Schema) -> Managed:
    # Types of built-in kinds do not change while the server runs; custom resources' may with every CRD update.
    if schema.definition:
        return dict(managed)
    return {manager: owned._replace(fields=reconcile(owned.fields, schema)) for manager, owned in managed.items()}


def _bare(tree: Tree) -> Tree:
    """Return the tree without managedFields."""
    metadata = tree.get("metadata")
    if not metadata or "managedFields" not in metadata:
        return tree
    return {**tree, "metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}


class _Versions:
    """How old and new differ, in terms of every version that managers speak."""

    def __init__(
        self, old: Tree, new: Tree, schema: Schema, version: str, reset: Reset | None, convert: Converter | None
    ) -> None:
        self.old, self.new, self.reset, self.convert = _bare(old), _bare(new), reset, convert
        self.known: dict[str, Comparison | None] = {version: self.filtered(compare(self.old, self.new, schema))}

    def filtered(self, comparison: Comparison) -> Comparison:
        if self.reset is None:
            return comparison
        return Comparison(*(self.reset.filter(fields) if fields else None for fields in comparison))

    def at(self, version: str, main: str) -> Comparison | None:
        """Return the difference at a version; None if that version is gone."""
        if version not in self.known:
            if version.count("/") > 1:
                raise TypeMismatch(f"unexpected GroupVersion string: {version}")
            if self.convert is None:
                self.known[version] = self.known[main]
            else:
                old, new = self.convert(self.old, version), self.convert(self.new, version)
                if old is None or new is None:
                    self.known[version] = None
                else:
                    validation.validate(*old)  # Another version is converted to strictly: no item twice.
                    validation.validate(*new)
                    # Custom resources name what is reset in the version that is spoken alone.
                    found = compare(old[0], new[0], old[1])
                    self.known[version] = self.filtered(found) if old[1].definition else found
        return self.known[version]


def _without_changed(
    managed: Managed,
    old: Tree,
    new: Tree,
    schema: Schema,
    version: str,
    reset: Reset | None,
    convert: Converter | None,
) -> tuple[Managed, Comparison]:
    """Take what changed away from its owners; return what they keep, and the difference."""
    versions = _Versions(old, new, schema, version, reset, convert)
    result: Managed = {}
    for manager, owned in managed.items():
        comparison = versions.at(owned.api_version, version)
        if comparison is None:
            continue
        fields = owned.fields
        for changed in comparison:
            if changed:
                fields = difference(fields, changed)
        if fields:
            result[manager] = owned if fields is owned.fields else owned._replace(fields=fields)
    comparison = versions.at(version, version)
    assert comparison is not None
    return result, comparison


def apply(
    live: Tree | None,
    applied: Tree,
    schema: Schema,
    manager: str,
    *,
    api_version: str,
    kind: str,
    force: bool,
    now: str,
    subresource: str = "",
    reset: Reset | None = None,
    convert: Converter | None = None,
) -> Result:
    """Return the live object with an applied configuration merged in; raise the ApiError that upstream answers with.

    `api_version` and `kind` are those of the path. The result is canonical but not defaulted. Without a live object
    (None) the configuration makes a new one.
    """
    gvk = _gvk(applied.get("apiVersion", ""), applied.get("kind", ""))
    if gvk != _gvk(api_version, kind):
        raise apierrors.BadRequest(f"invalid object type: {gvk}")
    if live is None:
        live = _zero(applied, schema)
    try:
        managed = decode(live["metadata"].get("managedFields"), trusted=True)
    except InvalidManagedFields as error:
        raise apierrors.ApiError(f"failed to decode managed fields: {error}") from None
    request = _Apply(schema, manager, api_version, subresource, reset, convert, gvk)
    if not managed:
        empty = _zero(applied, schema)
        try:
            managed = _updated(empty, live, {}, schema, BEFORE_FIRST_APPLY, now, subresource, reset, convert)
        except TypeMismatch as error:
            raise apierrors.ApiError(f"failed to create manager for existing fields: {error}") from None
    try:
        result, managed = request.run(live, applied, managed, force=force)
    except _Conflicts as conflicts:
        left = conflicts.paths
        if manager == "kubectl":
            allowed = _allowed_by_last_applied(live, schema, api_version)
            if allowed is not None:
                left = {
                    owner: kept
                    for owner, paths in left.items()
                    if (kept := [path for path in paths if not has(allowed, path)])
                }
        if left:
            raise _conflict(left) from None
        result, managed = request.run(live, applied, managed, force=True)
    me = manager_of(manager, "Apply", api_version, subresource)
    if result is not None and me in managed:
        managed[me] = managed[me]._replace(time=now)
    tree = _bare(live) if result is None else result
    if manager == "kubectl":
        tree = _with_last_applied(tree, applied)
    entries = encode(managed)
    if entries:
        tree = {**tree, "metadata": {**tree["metadata"], "managedFields": entries}}
    return Result(tree, changed=result is not None)


class _Conflicts(Exception):
    def __init__(self, paths: dict[Manager, list[tuple[str, ...]]]) -> None:
        super().__init__()
        self.paths = paths


@dataclass(slots=True)
class _Apply:
    schema: Schema
    manager: str
    version: str
    subresource: str
    reset: Reset | None
    convert: Converter | None
    gvk: str

    def run(self, live: Tree, applied: Tree, managed: Managed, *, force: bool) -> tuple[Tree | None, Managed]:
        """Return (the merged tree, or None if it equals the live one; managers); raise _Conflicts or an ApiError."""
        metadata = applied.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
            raise apierrors.BadRequest("metadata.managedFields must be nil")
        who = f"{_text(metadata, 'namespace')}/{_text(metadata, 'name')}; {self.gvk}"
        try:
            validation.validate(applied, self.schema)
        except TypeMismatch as error:
            raise apierrors.ApiError(f"failed to create typed patch object ({who}): {error}") from None
        live = _bare(live)
        try:
            validation.check_form(live, self.schema)
        except TypeMismatch as error:
            raise apierrors.ApiError(f"failed to create typed live object ({who}): {error}") from None
        managed = _reconciled(managed, self.schema)
        me = manager_of(self.manager, "Apply", self.version, self.subresource)
        try:
            merged = merge(live, applied, self.schema)
            last = managed.get(me)
            own = field_set(applied, self.schema)
            if self.reset is not None:
                own = self.reset.filter(own)
            managed[me] = Owned(own, self.version, last.time if last else None)
            # What is applied again as a whole leaves nothing to remove.
            shrunk = last is not None and difference(last.fields, own)
            result = self.pruned(merged, managed, last) if last is not None and shrunk else merged
            managed = self.settle(live, result, managed, me, force=force)
        except TypeMismatch as error:
            raise apierrors.ApiError(f"failed to merge config: {error}") from None
        changed = not alike(result, live)
        if me in managed:
            own = difference(own, _STRIPPED)
            if own:
                managed[me] = managed[me]._replace(fields=own)
            else:
                del managed[me]
        return (self.canonical(result, who) if changed else None), managed

    def canonical(self, tree: Tree, who: str) -> Tree:
        if not self.schema.definition or fits(tree, self.schema):
            return tree
        try:
            restored, _ = restore(tree, self.schema)
        except RestoreError as error:
            raise apierrors.ApiError(
                f"failed to convert new object ({who}) to proper version: "
                f"unable to convert unstructured object to {self.gvk}: {error}"
            ) from None
        result: Tree = normalize(restored, self.schema)
        return result

    def settle(self, old: Tree, new: Tree, managed: Managed, me: Manager, *, force: bool) -> Managed:
        """Find conflicts with other managers; take from them what was changed or removed."""
        versions = _Versions(old, new, self.schema, self.version, self.reset, self.convert)
        conflicts: dict[Manager, FieldSet] = {}
        result: Managed = {}
        for manager, owned in managed.items():
            if manager == me:
                result[manager] = owned
                continue
            comparison = versions.at(owned.api_version, self.version)
            if comparison is None:
                continue
            changed = union(comparison.modified or {}, comparison.added or {})
            conflict = intersection(owned.fields, changed) if changed else {}
            if conflict:
                conflicts[manager] = conflict
            fields = difference(owned.fields, conflict) if conflict else owned.fields
            if comparison.removed:
                fields = difference(fields, comparison.removed)
            if fields:
                result[manager] = owned._replace(fields=fields)
        if conflicts and not force:
            raise _Conflicts({manager: list(members(fields)) for manager, fields in conflicts.items()})
        if not result[me].fields:
            del result[me]
        return result

    def pruned(self, merged: Tree, managed: Managed, last: Owned) -> Tree:
        """Remove what this manager applied the last time, does not apply now, and nobody else owns."""
        schema = self.schema
        tree = merged
        if last.api_version != self.version and self.convert is not None:
            # The last configuration spoke another version: prune there, then come back.
            converted = self.convert(merged, last.api_version)
            if converted is None:
                return merged
            tree, schema = converted
        before = ensure_named(last.fields, schema)
        pruned = remove_items(tree, before, schema)
        everything = ensure_named(field_set(tree, schema), schema)
        owned: FieldSet = {}
        for owner in managed.values():
            owned = union(owned, owner.fields)
        kept = union(ensure_named(field_set(pruned, schema), schema), ensure_named(owned, schema))
        pruned = remove_items(tree, difference(everything, kept), schema)
        left = ensure_named(field_set(pruned, schema), schema)
        pruned = remove_items(tree, intersection(difference(everything, left), before), schema)
        if schema is not self.schema and self.convert is not None:
            back = self.convert(pruned, self.version)
            return merged if back is None else back[0]
        result: Tree = pruned
        return result


def _text(metadata: Any, name: str) -> str:
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""


def _gvk(api_version: Any, kind: Any) -> str:
    """Name a kind as Go prints it; what is no text, or no version, counts as left out."""
    api_version = api_version if isinstance(api_version, str) else ""
    if api_version.count("/") > 1:
        return "/, Kind="
    group, _, version = api_version.rpartition("/")
    return f"{group}/{version}, Kind={kind if isinstance(kind, str) else ''}"


def _conflict(paths: dict[Manager, list[tuple[str, ...]]]) -> apierrors.Conflict:
    causes = []
    lines = []
    for manager in sorted(paths, key=lambda manager: manager.identifier):
        lines.append(f"conflicts with {manager}:")
        for path in paths[manager]:
            text = "".join(map(element_text, path))
            lines.append(f"- {text}")
            causes.append(
                meta.StatusCause(reason="FieldManagerConflict", message=f"conflict with {manager}", field=text)
            )
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return apierrors.Conflict(message, meta.StatusDetails(causes=causes))


def _last_applied(tree: Tree) -> str:
    annotations = tree.get("metadata", {}).get("annotations") or {}
    text = annotations.get(LAST_APPLIED, "")
    return text if isinstance(text, str) else ""


def _allowed_by_last_applied(live: Tree, schema: Schema, api_version: str) -> FieldSet | None:
    """Return what kubectl owns by having applied it on the client's side; None if that cannot be told."""
    text = _last_applied(live)
    if not text:
        return None
    try:
        before = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(before, dict) or before.get("apiVersion") != api_version:
        return None
    bare = _bare(live)
    if validation.complaints(before, schema) or validation.complaints(bare, schema):
        return None
    fields = field_set(before, schema)
    for changed in compare(before, bare, schema):
        if changed:
            fields = difference(fields, changed)
    return fields


def _with_last_applied(tree: Tree, applied: Tree) -> Tree:
    """Keep the annotation of client-side apply in step, where an object has it."""
    if not _last_applied(tree):
        return tree
    metadata = dict(applied.get("metadata") or {})
    if metadata.get("annotations"):
        metadata["annotations"] = {name: text for name, text in metadata["annotations"].items() if name != LAST_APPLIED}
        if not metadata["annotations"]:
            del metadata["annotations"]
    text = orjson.dumps({**applied, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    annotations = {**tree["metadata"]["annotations"], LAST_APPLIED: text}
    if sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items()) > ANNOTATIONS_BYTES_MAX:
        del annotations[LAST_APPLIED]
    return {**tree, "metadata": {**tree["metadata"], "annotations": annotations}}


def keep_timestamps(live: Tree, new: Tree) -> bool:
    """Tell whether nothing but times of managedFields differs: then live's managedFields are to be kept.

    Call it after defaulting and admission, so that a write that changes nothing makes no new revision.
    """
    before, after = live["metadata"].get("managedFields"), new["metadata"].get("managedFields")
    if not before or not after or len(before) != len(after) or before == after:
        return False
    for old, fresh in zip(before, after, strict=True):
        if {**old, "time": ""} != {**fresh, "time": ""}:
            return False
    return alike(_bare(live), _bare(new))
