"""managedFields of what the server writes on its own account: usage of quotas, budgets, conditions, addresses.

Upstream does so through requests to itself, under the name of its user agent. Objects are of the stored version.
"""

from __future__ import annotations

from typing import Any

import orjson

from haven.api.scheme import Resource
from haven.apimachinery import apply, meta, serialization
from haven.apimachinery.schema import Schema, schema_for
from haven.apiserver.registry.fieldmanagement import typed_entries
from haven.apiserver.watchcache import Entry

__all__ = ["SERVER", "apply_status", "updated"]

SERVER = "kube-apiserver"
Tree = dict[str, Any]


def updated(
    new: Any, live: Entry, resource: Resource[Any], now: str, *, subresource: str = "", manager: str = SERVER
) -> list[meta.ManagedFieldsEntry]:
    """Return the managedFields of an object that replaces the stored one."""
    before: Tree = orjson.loads(live.data)
    after = serialization.to_tree(new)
    after["kind"], after["apiVersion"] = resource.kind, resource.api_version
    entries = apply.update(
        before,
        after,
        _schema(resource),
        manager,
        now=now,
        subresource=subresource,
        reset=apply.reset_for(resource.group, resource.plural, subresource),
    )
    return typed_entries(entries)


def apply_status(live: Entry, status: Tree, resource: Resource[Any], manager: str, now: str) -> Tree:
    """Return the stored object after a part of its status was applied, by force."""
    result = apply.apply(
        orjson.loads(live.data),
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": live.name},
            "status": status,
        },
        _schema(resource),
        manager,
        api_version=resource.api_version,
        kind=resource.kind,
        force=True,
        now=now,
        subresource="status",
        reset=apply.reset_for(resource.group, resource.plural, "status"),
    )
    return result.tree


def _schema(resource: Resource[Any]) -> Schema:
    schema = schema_for(resource.group, resource.version, resource.kind)
    assert schema is not None, resource
    return schema
