"""metadata.managedFields of every write, through haven.apimachinery.apply.

Ownership is kept in the version that a client speaks, so objects are looked at as trees of that version.
"""

from __future__ import annotations

from typing import Any

import orjson

from haven.api import scheme
from haven.api.apps.validation import TEMPLATE_GENERATION
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import apply, meta, serialization, times
from haven.apimachinery.schema import Schema, schema_for
from haven.apiserver.registry.endpoint import Endpoint, Pending
from haven.apiserver.registry.output import served_bytes
from haven.apiserver.registry.versions import conversion
from haven.apiserver.request import Request
from haven.apiserver.watchcache import Entry
from haven.clock import Clock

__all__ = ["FieldManagement", "keep_reset", "manager_of", "typed_entries"]

Tree = dict[str, Any]
_MANAGER_MAX = 128


def manager_of(field_manager: str, request: Request) -> str:
    """Return the name under which a write is kept: as asked for, else what the client calls itself."""
    if field_manager:
        return field_manager
    agent = request.headers.get("user-agent", "").partition("/")[0]
    result = "".join(char for char in agent if char.isprintable())
    while len(result.encode()) > _MANAGER_MAX:
        result = result[:-1]
    return result or "unknown"


def keep_reset(tree: Tree, obj: Any) -> None:
    """Let an object show that its tree's list of managedFields is there and empty, which gives up all ownership."""
    if not obj.metadata.managed_fields and (tree.get("metadata") or {}).get("managedFields") is not None:
        obj.metadata.managed_fields = [meta.ManagedFieldsEntry()]


class FieldManagement:
    """Keeps track of who set which field."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> str:
        """Return the time as managedFields give it."""
        return times.format_time(self._clock.now_seconds())

    def created(self, obj: Any, endpoint: Endpoint, manager: str) -> None:
        """Set the managedFields of a new object of the stored version."""
        entries = apply.update(
            None,
            _served_tree(obj, endpoint),
            endpoint.schema,
            manager,
            now=self.now(),
            reset=endpoint.reset(),
        )
        obj.metadata.managed_fields = typed_entries(entries)

    def posted(self, obj: Any, gvk: GroupVersionKind, schema: Schema, manager: str, subresource: str) -> None:
        """Set the managedFields of an object that is answered and not stored."""
        tree = serialization.to_tree(obj)
        tree["kind"], tree["apiVersion"] = gvk.kind, gvk.api_version
        entries = apply.update(None, tree, schema, manager, now=self.now(), subresource=subresource)
        obj.metadata.managed_fields = typed_entries(entries)

    async def updated(self, new: Any, live: Entry | None, endpoint: Endpoint, manager: str, subresource: str) -> None:
        """Set the managedFields of a changed object of the stored version."""
        while True:
            try:
                return self._updated(new, live, endpoint, manager, subresource)
            except Pending as pending:
                await pending.fetch()

    def _updated(self, new: Any, live: Entry | None, endpoint: Endpoint, manager: str, subresource: str) -> None:
        entries = apply.update(
            None if live is None else orjson.loads(served_bytes(live, endpoint)),
            _served_tree(new, endpoint),
            endpoint.schema,
            manager,
            now=self.now(),
            subresource=subresource,
            reset=endpoint.reset(subresource),
            convert=_Converter(endpoint),
        )
        new.metadata.managed_fields = typed_entries(entries)

    async def applied(
        self, live: Entry | None, patch: Tree, endpoint: Endpoint, manager: str, subresource: str, *, force: bool
    ) -> Tree:
        """Return the tree (of the served version) that applying a configuration leads to."""
        while True:
            try:
                return self._applied(live, patch, endpoint, manager, subresource, force=force)
            except Pending as pending:
                await pending.fetch()

    def _applied(
        self, live: Entry | None, patch: Tree, endpoint: Endpoint, manager: str, subresource: str, *, force: bool
    ) -> Tree:
        resource = endpoint.resource
        result = apply.apply(
            None if live is None else orjson.loads(served_bytes(live, endpoint)),
            patch,
            endpoint.schema,
            manager,
            api_version=resource.api_version,
            kind=resource.kind,
            force=force,
            now=self.now(),
            subresource=subresource,
            reset=endpoint.reset(subresource),
            convert=_Converter(endpoint),
        )
        return result.tree

    @staticmethod
    def keep_times(new: Any, old: Any) -> None:
        """Take over the old managedFields when nothing but their times would change: then nothing is written."""
        before, after = old.metadata.managed_fields, new.metadata.managed_fields
        if not before or len(before) != len(after) or before == after:
            return
        for one, other in zip(before, after, strict=True):
            if (one.manager, one.operation, one.api_version, one.subresource, one.fields_v1) != (
                other.manager,
                other.operation,
                other.api_version,
                other.subresource,
                other.fields_v1,
            ):
                return
        new.metadata.managed_fields = before
        if new != old:
            new.metadata.managed_fields = after


def _served_tree(obj: Any, endpoint: Endpoint) -> Tree:
    tree = endpoint.conversion.tree_to_served(serialization.to_tree(obj))
    if (endpoint.resource.group, endpoint.resource.kind) == ("apps", "DaemonSet"):
        # A number of upstream's internal type, which is always shown: whoever writes the object owns it.
        tree.setdefault("metadata", {}).setdefault("annotations", {}).setdefault(TEMPLATE_GENERATION, "0")
    return tree


def typed_entries(entries: list[Tree]) -> list[meta.ManagedFieldsEntry]:
    """Return managedFields as structs."""
    return [
        meta.ManagedFieldsEntry(
            manager=entry.get("manager", ""),
            operation=entry.get("operation", ""),
            api_version=entry.get("apiVersion", ""),
            time=entry.get("time"),
            fields_type=entry.get("fieldsType", ""),
            fields_v1=entry.get("fieldsV1"),
            subresource=entry.get("subresource", ""),
        )
        for entry in entries
    ]


class _Converter:
    """Shows a tree in another version of its kind."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __call__(self, tree: Tree, api_version: str) -> tuple[Tree, Schema] | None:
        endpoint = self._endpoint
        if endpoint.view is not None:
            return endpoint.view.convert(tree, api_version)
        group, _, version = api_version.rpartition("/")
        if group != endpoint.resource.group:
            return None
        try:
            resource = scheme.find(group, version, endpoint.resource.plural)
        except KeyError:
            return None
        schema = schema_for(group, version, resource.kind)
        if schema is None:
            return None
        copy: Tree = orjson.loads(serialization.encode_tree(tree))
        target = conversion(resource)
        return target.tree_to_served(endpoint.conversion.tree_to_stored(copy)), schema
