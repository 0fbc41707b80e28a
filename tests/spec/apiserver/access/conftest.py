"""Stored objects in a dictionary, for authenticators and admission plugins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from haven.api import scheme
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import Conflict


class MemoryObjects:
    """What plugins see of the store. `put` stores, `update_status` insists on the newest resource version."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str, str], Any] = {}
        self._revision = 0

    def put(self, obj: Any) -> Any:
        resource = scheme.resource_of(type(obj))
        self._revision += 1
        obj.metadata.resource_version = str(self._revision)
        self._objects[(resource.group, resource.plural, obj.metadata.namespace, obj.metadata.name)] = obj
        return obj

    def remove(self, obj: Any) -> None:
        resource = scheme.resource_of(type(obj))
        del self._objects[(resource.group, resource.plural, obj.metadata.namespace, obj.metadata.name)]

    def get(self, resource: scheme.Resource[Any], namespace: str, name: str) -> Any:
        return self._objects.get((resource.group, resource.plural, namespace, name))

    def list(self, resource: scheme.Resource[Any], namespace: str = "") -> Sequence[Any]:
        return [
            obj
            for (group, plural, where, _), obj in self._objects.items()
            if (group, plural) == (resource.group, resource.plural) and namespace in ("", where)
        ]

    async def get_fresh(self, resource: scheme.Resource[Any], namespace: str, name: str) -> Any:
        return self.get(resource, namespace, name)

    async def update_status(self, resource: scheme.Resource[Any], obj: Any) -> Any:
        stored = self.get(resource, obj.metadata.namespace, obj.metadata.name)
        if stored is None or stored.metadata.resource_version != obj.metadata.resource_version:
            raise Conflict.of(resource.group_resource, obj.metadata.name, "the object has been modified")
        return self.put(serialization.copy(obj))


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()
