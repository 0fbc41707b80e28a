"""Serves the objects of definitions: endpoints, discovery and OpenAPI change with each definition, at once.

A definition is served as soon as the store holds it with accepted names. This module answers changes; what the status
of a definition becomes is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from haven import telemetry
from haven.api.apiextensions import v1
from haven.apimachinery import meta
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.codecs.negotiate import RESOURCES_UNSTRUCTURED
from haven.apiserver.chain import PathHandler
from haven.apiserver.customresources.conditions import is_served
from haven.apiserver.customresources.conversion import Converter, NoneConverter, ReviewSender, WebhookConverter
from haven.apiserver.customresources.definition import Definition, Version, compile_definition, is_true
from haven.apiserver.customresources.meter import CustomMeter
from haven.apiserver.customresources.rules import rules_for
from haven.apiserver.customresources.strategy import custom_strategy
from haven.apiserver.customresources.view import VersionView, decode_entry
from haven.apiserver.discovery import Discovery, ServedVersion, api_resources
from haven.apiserver.openapi.schemas import CustomKind
from haven.apiserver.openapi.server import OpenAPI
from haven.apiserver.printers.custom import custom_printer
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.resources import Handler, Resources
from haven.apiserver.registry.storage import Storage, Storages
from haven.apiserver.registry.versions import Conversion
from haven.apiserver.watchcache import DELETED, Watched
from haven.clock import Clock
from haven.metrics.families import Registry

__all__ = ["DEFINITIONS", "CustomResources"]

DEFINITIONS = GroupResource("apiextensions.k8s.io", "customresourcedefinitions")
_TERMINATING_VERBS = ["delete", "deletecollection", "get", "list", "watch"]
_log = telemetry.logger("apiserver")


class CustomResources:
    """Every definition that is served."""

    def __init__(
        self,
        storages: Storages,
        resources: Resources,
        paths: MutableMapping[str, PathHandler],
        discovery: Discovery,
        openapi: OpenAPI,
        sender: ReviewSender,
        clock: Clock,
        scales: dict[str, Handler],
        registry: Registry | None = None,
    ) -> None:
        self._meter = CustomMeter(registry)
        self._storages = storages
        self._resources = resources
        self._paths = paths
        self._discovery = discovery
        self._openapi = openapi
        self._sender = sender
        self._clock = clock
        self._scales = scales
        self._definitions: dict[str, Definition] = {}
        self._described: set[str] = set()
        self._added_paths: set[str] = set()
        self._following: set[asyncio.Task[None]] = set()
        self.after_change: list[Callable[[str], None]] = []
        """Told the name of each definition that was written or went away."""

    @property
    def definitions(self) -> dict[str, Definition]:
        """The definitions that are served, by name."""
        return self._definitions

    async def load(self) -> None:
        """Serve what the store holds. Call once, before anything is served."""
        for entry in list(self._storages.of(DEFINITIONS).cache.entries()):
            crd = entry.object
            if is_served(crd):
                await self.keep(crd)
                self._serve(crd)
        self._publish()
        self._storages.after_change.append(self._changed)

    async def keep(self, crd: v1.CustomResourceDefinition) -> None:
        """Begin to keep the objects of a definition, which is then fit to be served."""
        definition = compile_definition(crd)
        resource = definition.storage.resource
        if self._storage(resource.group_resource) is None:
            storage = self._storages.add(resource, {}, decode_entry)
            await self._storages.load(storage)

    async def take_up(self, crd: v1.CustomResourceDefinition) -> None:
        """Serve a definition that was established without this server."""
        await self.keep(crd)
        self._serve(crd)
        self._publish()

    def _storage(self, resource: GroupResource) -> Storage | None:
        try:
            return self._storages.of(resource)
        except KeyError:
            return None

    def endpoint_for_cleanup(self, definition: Definition) -> Endpoint:
        """Return an endpoint of the storage version, be it served or not."""
        storage = self._storages.of(definition.storage.resource.group_resource)
        return self._endpoint(definition, definition.storage, storage, self._converter(definition.crd))

    # ---- changes

    def _changed(self, storage: Storage, event: Watched) -> None:
        if storage.resource.group_resource != DEFINITIONS:
            return
        name = event.entry.name
        crd: v1.CustomResourceDefinition | None = None if event.type == DELETED else event.entry.object
        if crd is not None and not is_served(crd):
            crd = None
        known = self._definitions.get(name)
        if crd is None:
            if known is not None:
                self._stop(known, forget=event.type == DELETED)
                self._publish()
        elif known is None or self._differs(known.crd, crd):
            if self._storage(GroupResource(crd.spec.group, crd.status.accepted_names.plural)) is not None:
                self._serve(crd)
                self._publish()
            else:  # Another server on the same store took it up.
                task = asyncio.create_task(self._follow(name), name=f"follow-{name}")
                self._following.add(task)
                task.add_done_callback(self._following.discard)
        else:
            known.crd = crd
            if is_true(crd, "Terminating"):
                self._publish()
        for tell in self.after_change:
            tell(name)

    async def _follow(self, name: str) -> None:
        """Serve what another server took up, as it is now."""
        entry = self._storages.of(DEFINITIONS).get("", name)
        if entry is None or not is_served(entry.decoded()):
            return
        await self.keep(entry.decoded())
        entry = self._storages.of(DEFINITIONS).get("", name)
        if entry is not None and is_served(entry.decoded()):
            self._serve(entry.decoded())
            self._publish()

    @staticmethod
    def _differs(old: v1.CustomResourceDefinition, new: v1.CustomResourceDefinition) -> bool:
        return (
            old.metadata.uid != new.metadata.uid
            or old.spec != new.spec
            or old.status.accepted_names != new.status.accepted_names
            or is_true(old, "Established") != is_true(new, "Established")
        )

    def _stop(self, definition: Definition, *, forget: bool) -> None:
        """Serve a definition's objects no longer; `forget` them too if it is gone."""
        for version in definition.versions.values():
            self._resources.remove(version.resource)
        resource = definition.storage.resource
        self._resources.subresources.pop((resource.group, resource.plural, "scale"), None)
        del self._definitions[definition.name]
        if forget:
            self._describe(definition, "remove")
        if forget:
            self._storages.remove(resource)
        else:
            self._storages.of(resource.group_resource).cache.stop_watchers()

    def _serve(self, crd: v1.CustomResourceDefinition) -> None:
        """Serve a definition's objects as it declares them now."""
        known = self._definitions.get(crd.metadata.name)
        if known is not None:
            self._stop(known, forget=False)
        definition = compile_definition(crd)
        storage = self._storages.of(definition.storage.resource.group_resource)
        for entry in storage.cache.entries():
            entry.views = None
        storage.keep_objects = False
        converter = self._converter(crd)
        for version in self._served(definition):
            self._resources.add_custom(self._endpoint(definition, version, storage, converter))
        if any(version.scale is not None for version in definition.versions.values()):
            resource = definition.storage.resource
            self._resources.subresources[(resource.group, resource.plural, "scale")] = self._scales
        self._describe(definition, "update" if definition.name in self._described else "add")
        self._definitions[definition.name] = definition

    def _served(self, definition: Definition) -> list[Version]:
        """Return the versions that are to be served: one of a built-in group is hidden by the built-in one."""
        taken = self._discovery.built_in_versions
        return [one for one in definition.versions.values() if one.served and (definition.group, one.name) not in taken]

    def _describe(self, definition: Definition, reason: str) -> None:
        """Count that OpenAPI says something else about a definition."""
        (self._described.discard if reason == "remove" else self._described.add)(definition.name)
        served = [version.resource for version in definition.versions.values() if version.served]
        self._meter.described(definition.name, reason, [(one.group, one.version) for one in served])

    def _converter(self, crd: v1.CustomResourceDefinition) -> Converter:
        if crd.spec.conversion is not None and crd.spec.conversion.strategy == "Webhook":
            return WebhookConverter(crd, self._sender, self._meter)
        return NoneConverter()

    def _endpoint(self, definition: Definition, version: Version, storage: Storage, converter: Converter) -> Endpoint:
        strategy = custom_strategy(version, rules_for(version), self._meter)
        resource = version.resource
        printer = custom_printer(version.columns)
        return Endpoint(
            resource,
            storage,
            strategy,
            Conversion(resource, resource, _nothing, _nothing),
            version.schema,
            offer=RESOURCES_UNSTRUCTURED,
            printer=printer,
            clock=self._clock,
            view=VersionView(definition, version, converter, dict(strategy.selectable_fields)),
        )

    # ---- documents

    def _publish(self) -> None:
        """Say in discovery and OpenAPI what is served."""
        established = [one for _, one in sorted(self._definitions.items()) if is_true(one.crd, "Established")]
        listed: dict[tuple[str, str], list[meta.APIResource]] = {}
        kinds: list[CustomKind] = []
        for definition in established:
            state = f"{definition.crd.metadata.uid}/{definition.crd.metadata.generation}"
            for version in self._served(definition):
                listed.setdefault((definition.group, version.name), []).extend(_listed(definition, version))
                kinds.append(
                    CustomKind(
                        version.resource,
                        version.open_api,
                        state,
                        list_kind=definition.list_kind,
                        selectable=tuple(path.removeprefix(".") for path in version.selectable),
                        is_open=definition.preserve_unknown,
                    )
                )
        self._discovery.replace(
            [
                ServedVersion(group, version, tuple(items), names_kinds_fully=True)
                for (group, version), items in listed.items()
            ]
        )
        self._openapi.replace(kinds)
        wanted = {f"/apis/{group}" for group, _ in listed} | {f"/apis/{group}/{version}" for group, version in listed}
        for path in self._added_paths - wanted:
            del self._paths[path]
        self._added_paths = {path for path in wanted if path in self._added_paths or path not in self._paths}
        for path in self._added_paths:
            self._paths[path] = self._discovery.handle


def _nothing(_tree: dict[str, Any]) -> None:
    """A custom resource's versions are converted by its view."""


def _listed(definition: Definition, version: Version) -> list[meta.APIResource]:
    found = api_resources(version.resource, definition.storage_version)
    if definition.is_terminating:
        found[0].verbs = list(_TERMINATING_VERBS)
    return found
