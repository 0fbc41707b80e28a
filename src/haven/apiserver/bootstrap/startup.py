"""Writes the objects that every cluster starts with, and looks after those that must not go missing.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#maintenance-of-the-mandatory-and-suggested-configuration-objects
"""

from __future__ import annotations

from typing import Any

from haven import telemetry
from haven.api.apiregistration import v1 as apiregistration
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.networking import v1 as networking
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, times
from haven.apimachinery.names import Revision
from haven.apiserver.bootstrap.objects import AUTOMANAGED, BootstrapSettings, bootstrap_objects, unstable_names
from haven.apiserver.bootstrap.ownership import manager_of, owners
from haven.apiserver.bootstrap.reconcile import plan
from haven.apiserver.flowcontrol.matching import dangling
from haven.apiserver.objects import StoredObjects
from haven.apiserver.registry import serverwrites, systemfields
from haven.apiserver.registry.storage import Storages, Write
from haven.clock import Clock
from haven.store.interface import StoreError, TransactionFailed

__all__ = ["keep_flow_objects", "write_bootstrap_objects"]

KEEP_SECONDS = 60.0
_SHARED_BATCH = 100  # etcd takes 128 operations in a transaction unless told otherwise.
_WITH_GENERATION = frozenset({"flowcontrol.apiserver.k8s.io", "scheduling.k8s.io"})
_log = telemetry.logger("apiserver")


async def write_bootstrap_objects(
    storages: Storages, objects: StoredObjects, settings: BootstrapSettings, clock: Clock, *, only_flows: bool = False
) -> None:
    """Write what is missing of the objects that every cluster starts with.

    Where several servers start at once, those that lose the race look again and find them there.
    """
    while True:
        writes = _missing(storages, objects, settings, clock, only_flows=only_flows)
        size = _SHARED_BATCH if storages.store.shared else len(writes)
        try:
            for start in range(0, len(writes), size or 1):
                await storages.commit(writes[start : start + size])
            return
        except TransactionFailed:
            if not storages.store.shared:
                raise


async def keep_flow_objects(
    storages: Storages, objects: StoredObjects, settings: BootstrapSettings, clock: Clock
) -> None:
    """Put back flow schemas and priority levels that somebody removed or bent, now and then, until cancelled."""
    while True:
        await clock.sleep(KEEP_SECONDS)
        try:
            await write_bootstrap_objects(storages, objects, settings, clock, only_flows=True)
        except (StoreError, apierrors.ApiError) as error:
            _log.warning("Flow schemas and priority levels were not put back.", error=str(error))


def _missing(
    storages: Storages, objects: StoredObjects, settings: BootstrapSettings, clock: Clock, *, only_flows: bool
) -> list[Write]:
    wanted = (obj for obj in bootstrap_objects(settings) if _is_readable(storages, obj))
    if only_flows:
        kinds = flowcontrol.FlowSchema | flowcontrol.PriorityLevelConfiguration
        wanted = (obj for obj in wanted if isinstance(obj, kinds))
    writes: list[Write] = []
    for change in plan(wanted, objects.get):
        storage = storages.of(change.resource.group_resource)
        new = change.new
        metadata = new.metadata
        if change.old is None or change.replace:
            systemfields.fill(metadata, clock.now_seconds())
            if change.resource.group in _WITH_GENERATION:
                metadata.generation = metadata.generation or 1
            if isinstance(new, flowcontrol.FlowSchema):
                level = new.spec.priority_level_configuration.name
                new.status.conditions = [dangling(level, metadata.creation_timestamp, exists=True)]
            if isinstance(new, apiregistration.APIService) and new.spec.service is None:
                new.status.conditions = [_locally_available(metadata.creation_timestamp)]
            if isinstance(new, networking.ServiceCIDR):
                new.status.conditions = [_ready(metadata.creation_timestamp)]
            metadata.managed_fields = owners(new, change.resource.api_version, metadata.creation_timestamp or "")
        entry = storage.get(metadata.namespace, metadata.name)
        if change.old is not None and entry is not None and not change.replace:
            now = times.format_time(clock.now_seconds())
            metadata.managed_fields = serverwrites.updated(new, entry, change.resource, now, manager=manager_of(new))
        expected = entry.revision if entry is not None else Revision(0)
        writes.append(Write(storage, storage.key(metadata.namespace, metadata.name), new, expected=expected))
    return writes if only_flows else writes + _withdrawn(storages, settings)


def _withdrawn(storages: Storages, settings: BootstrapSettings) -> list[Write]:
    """Return the deletions of APIServices whose versions are served no longer; nobody else's are touched."""
    storage = storages.of(resource_of(apiregistration.APIService).group_resource)
    served = {f"{version}.{group}" for group, version in settings.unstable}
    result = []
    for name in unstable_names():
        entry = storage.get("", name)
        if name in served or entry is None or entry.glimpse.metadata.labels.get(AUTOMANAGED) != "onstart":
            continue
        result.append(Write(storage, storage.key("", name), None, expected=entry.revision))
    return result


def _ready(since: str | None) -> meta.Condition:
    return meta.Condition(
        type="Ready", status="True", last_transition_time=since, message="Kubernetes default Service CIDR is ready"
    )


def _is_readable(storages: Storages, obj: Any) -> bool:
    """Tell whether an object can be put right: what is stored in its place may be beyond reading."""
    storage = storages.of(resource_of(type(obj)).group_resource)
    return storage.damage_of(obj.metadata.namespace, obj.metadata.name) is None


def _locally_available(since: str | None) -> apiregistration.APIServiceCondition:
    return apiregistration.APIServiceCondition(
        type="Available",
        status="True",
        last_transition_time=since,
        reason="Local",
        message="Local APIServices are always available",
    )
