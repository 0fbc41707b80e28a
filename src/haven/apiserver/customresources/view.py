"""How one version of a custom resource shows stored objects, and how its objects are stored.

What is stored may be of any version that was once the storage version, and older than the schema. Reading it prunes,
fills in defaults and converts; the outcome is kept with the stored entry, so that it is worked out once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from haven.api.apiextensions import v1
from haven.apimachinery import apierrors, apply, serialization
from haven.apimachinery.schema import Schema
from haven.apimachinery.schema.coercion import coerce, fill_defaults
from haven.apimachinery.unstructured import Unstructured
from haven.apiserver.customresources import bodies
from haven.apiserver.customresources.conversion import ConversionFailed, Converter
from haven.apiserver.customresources.definition import Definition, Version
from haven.apiserver.registry.endpoint import Pending
from haven.apiserver.watchcache import Entry, Kind

__all__ = ["VersionView", "decode_entry"]

Tree = dict[str, Any]
_FETCHED_MAX = 64


def decode_entry(data: bytes) -> Unstructured:
    """Return a stored custom resource as an object."""
    return serialization.decode(data, Unstructured)


class VersionView:
    """One version of one definition. A changed definition gets new views, so what old ones worked out is forgotten."""

    def __init__(
        self,
        definition: Definition,
        version: Version,
        converter: Converter,
        fields: dict[str, Callable[[Any], str]],
    ) -> None:
        self._definition = definition
        self._version = version
        self._converter = converter
        self._kind = Kind(decode_entry, fields)
        self._fetched: dict[tuple[bytes, str], Tree] = {}

    @property
    def list_kind(self) -> str:
        return self._definition.list_kind

    @property
    def deprecations(self) -> Sequence[str]:
        return self._version.warnings

    @property
    def scale(self) -> v1.CustomResourceSubresourceScale | None:
        """Where the version keeps its replicas, if it can be scaled."""
        return self._version.scale

    @property
    def replica_paths(self) -> dict[str, tuple[str, ...] | None]:
        """Where each version keeps its replicas, by API version."""
        return {
            version.resource.api_version: tuple(version.scale.spec_replicas_path.removeprefix(".").split("."))
            if version.scale is not None
            else None
            for version in self._definition.versions.values()
        }

    # ---- bodies

    def decode(self, data: bytes, content_type: str, validation: str, warnings: list[str]) -> Unstructured:
        return bodies.decode_body(data, content_type, self._definition, self._version, validation, warnings)

    def patched(self, tree: Tree, complaints: list[str], validation: str, warnings: list[str]) -> Unstructured:
        return bodies.from_patch(tree, self._definition, complaints, validation, warnings)

    def applied(self, tree: Tree) -> Unstructured:
        return bodies.from_apply(tree, self._definition)

    def admit_create(self, name: str) -> None:
        if self._definition.is_terminating:
            because = "create not allowed while custom resource definition is terminating"
            raise apierrors.Forbidden.of(self._version.resource.group_resource, name, because)

    def reset(self, subresource: str) -> apply.Reset | None:
        return apply.custom_resource_reset(has_status=self._version.has_status, subresource=subresource)

    # ---- stored objects

    async def show(self, entries: Sequence[Entry]) -> list[Entry]:
        missing = [entry for entry in entries if entry.views is None or self not in entry.views]
        if missing:
            await self._work_out(missing)
        result = []
        for entry in entries:
            assert entry.views is not None
            found = entry.views[self]
            result.append(entry if found is None else found)
        return result

    async def _work_out(self, entries: Sequence[Entry]) -> None:
        foreign: list[tuple[Entry, Tree]] = []
        for entry in entries:
            tree = orjson.loads(entry.data)
            changed = self._read(tree)
            if tree["apiVersion"] == self._version.resource.api_version:
                self._keep(entry, tree if changed else None)
            else:
                foreign.append((entry, tree))
        if not foreign:
            return
        wanted = self._version.resource.api_version
        converted = await self._converter.convert([tree for _, tree in foreign], wanted)
        for (entry, _), tree in zip(foreign, converted, strict=True):
            coerce(tree, self._version.open_api, preserve_unknown=self._definition.preserve_unknown)
            self._keep(entry, tree)

    def _read(self, tree: Tree) -> bool:
        """Do what reading an object from the store does, in place; tell whether that changed it."""
        group, _, name = tree["apiVersion"].rpartition("/")
        version = self._definition.versions.get(name)
        known = {one.name for one in self._definition.crd.spec.versions or ()}
        if group != self._definition.group or name not in known:
            text = f"request to convert CR from an invalid group/version: {tree['apiVersion']}"
            raise ConversionFailed(text)
        before = orjson.dumps(tree)
        open_api = version.open_api if version is not None else None
        if version is not None:
            coerce(tree, open_api, preserve_unknown=self._definition.preserve_unknown, lenient=True)
            fill_defaults(tree, open_api)
        tree["metadata"].setdefault("generation", 1)
        return orjson.dumps(tree) != before

    def _keep(self, entry: Entry, tree: Tree | None) -> None:
        if entry.views is None:
            entry.views = {}
        if tree is None and not self._kind.fields:
            entry.views[self] = None
            return
        data = entry.data if tree is None else serialization.encode_tree(tree)
        labels = entry.labels if tree is None else tree["metadata"].get("labels") or {}
        entry.views[self] = Entry(
            self._kind,
            data,
            namespace=entry.namespace,
            name=entry.name,
            uid=entry.uid,
            labels=labels,
            revision=entry.revision,
            created=entry.created,
        )

    async def stored(self, obj: Any) -> Any:
        storage = self._definition.storage
        if obj.api_version == storage.resource.api_version:
            return obj
        tree = serialization.to_tree(obj)
        converted = (await self._converter.convert([tree], storage.resource.api_version))[0]
        coerce(converted, storage.open_api, preserve_unknown=self._definition.preserve_unknown)
        return Unstructured.from_wire(converted)

    async def rehearsed(self, obj: Any) -> Any:
        kept = await self.stored(obj)
        if kept is obj or self._converter.is_immediate:
            return obj
        wanted = self._version.resource.api_version
        tree = (await self._converter.convert([serialization.to_tree(kept)], wanted))[0]
        coerce(tree, self._version.open_api, preserve_unknown=self._definition.preserve_unknown)
        return Unstructured.from_wire(tree)

    # ---- owners of fields in other versions

    def convert(self, tree: Tree, api_version: str) -> tuple[Tree, Schema] | None:
        group, _, name = api_version.rpartition("/")
        version = self._definition.versions.get(name)
        if group != self._definition.group or version is None:
            return None
        if tree.get("apiVersion") == api_version:
            return tree, version.schema
        if self._converter.is_immediate:
            converted = {**serialization.decode_tree(serialization.encode_tree(tree)), "apiVersion": api_version}
            return converted, version.schema
        key = (serialization.encode_tree(tree), api_version)
        found = self._fetched.get(key)
        if found is None:
            raise Pending(lambda: self._fetch(key))
        return serialization.decode_tree(serialization.encode_tree(found)), version.schema

    async def _fetch(self, key: tuple[bytes, str]) -> None:
        data, api_version = key
        while len(self._fetched) >= _FETCHED_MAX:
            del self._fetched[next(iter(self._fetched))]
        self._fetched[key] = (await self._converter.convert([serialization.decode_tree(data)], api_version))[0]
