"""Rewrite every object of a resource, so that all are stored as the server stores new ones: version and encryption.

One migration of a resource runs at a time, the oldest first. Its mark is a resource version taken when it begins:
what was written after that is stored anew already. Each older object is applied with nothing but its UID and resource
version, which changes nothing but makes the server write it if it is stored otherwise than it would be now.
Source: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/storage-version-migration/
"""

from __future__ import annotations

from typing import Any, NamedTuple

from haven.api.apiextensions import v1 as apiextensions
from haven.api.scheme import Resource, resource_of
from haven.api.storagemigration import v1beta1 as migration
from haven.apimachinery import apierrors, meta, serialization, times
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Fetch, Request, Retry, Steps, Update, Wiring
from haven.controllers.discovery import discover

__all__ = ["StorageVersionMigrator"]

Migration = migration.StorageVersionMigration
RUNNING, SUCCEEDED, FAILED, MIGRATING = "Running", "Succeeded", "Failed", "StorageMigrating"
MANAGER, CRD_MANAGER = "storage-version-migrator-controller", "migration-runner-controller"
WAIT_SECONDS = 60.0
"""How long a resource may be missing: its definition may be newer than the migration's."""
PAGE_OBJECTS = 500
VERBS = ("update", "patch", "list")
_DEFINITIONS = resource_of(apiextensions.CustomResourceDefinition)
_ROWS = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
_PASSING = (
    apierrors.ServerTimeout,
    apierrors.TooManyRequests,
    apierrors.ServiceUnavailable,
    apierrors.InternalError,
    apierrors.Timeout,
)


class Key(NamedTuple):
    """A resource that is migrated."""

    group: str
    resource: str


def _holds(one: Migration, name: str) -> bool:
    return any(condition.type == name and condition.status == "True" for condition in one.status.conditions)


def _is_over(one: Migration) -> bool:
    return _holds(one, SUCCEEDED) or _holds(one, FAILED)


def _age(one: Migration) -> tuple[str, str]:
    return (one.metadata.creation_timestamp or "", one.metadata.name)


class StorageVersionMigrator:
    """Keys are the resources of migrations."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._migrations = wiring.reader(Migration)
        self._migrations.add_handler(self._changed)

    def _changed(self, old: Migration | None, new: Migration | None) -> None:
        one = old if new is None else new
        if one is not None:
            self._wiring.enqueue(Key(one.spec.resource.group, one.spec.resource.resource))

    def sync(self, key: Key) -> Steps[None]:
        own = [
            one
            for one in self._migrations.list()
            if (one.spec.resource.group, one.spec.resource.resource) == (key.group, key.resource)
        ]
        for one in own:
            if _holds(one, RUNNING) and _is_over(one):
                yield from self._finish(one)
        running = [one for one in own if _holds(one, RUNNING) and not _is_over(one)]
        waiting = [one for one in own if not _holds(one, RUNNING) and not _is_over(one)]
        if not running and waiting:
            running = [(yield from self._begin(min(waiting, key=_age)))]
        for one in sorted(running, key=_age)[:1]:
            yield from self._run(one)

    # ---- the beginning and the end

    def _begin(self, one: Migration) -> Steps[Migration]:
        yield from self._mark_definition(one, "True", "MigrationRunning", f"Migration {one.metadata.name} is running")
        return (yield from self._condition(one, RUNNING, "MigrationRunning", "The migration is running"))

    def _finish(self, one: Migration) -> Steps[None]:
        if _holds(one, SUCCEEDED):
            text = "The migration has succeeded"
            yield from self._mark_definition(one, "False", "MigrationSucceeded", text)
        else:
            yield from self._mark_definition(one, "False", "MigrationFailed", "The migration has failed")
        changed = serialization.copy(one)
        for condition in changed.status.conditions:
            if condition.type == RUNNING:
                condition.status, condition.reason = "False", "MigrationCompleted"
                condition.message = "Migration completed"
                condition.last_transition_time = times.format_time(self._wiring.now_seconds())
        yield Update(changed, "status")

    def _mark_definition(self, one: Migration, status: str, reason: str, text: str) -> Steps[None]:
        """Say on a custom resource's definition that its objects are migrated; at last, what they are stored as."""
        resource = one.spec.resource
        if not resource.group:
            return
        definition = yield Fetch(_DEFINITIONS, "", f"{resource.resource}.{resource.group}")
        if definition is None:
            return
        body: dict[str, Any] = {"conditions": []}
        generation = definition.metadata.generation
        if status == "False":
            begun = next((each for each in definition.status.conditions if each.type == MIGRATING), None)
            is_same = begun is not None and begun.observed_generation == generation
            if is_same:
                body["storedVersions"] = [each.name for each in definition.spec.versions if each.storage]
            if reason == "MigrationSucceeded":
                text += (
                    " and the stored versions have been updated"
                    if is_same
                    else (" but the stored versions have not been updated due to a generation mismatch")
                )
        body["conditions"].append(
            {
                "type": MIGRATING,
                "status": status,
                "reason": reason,
                "message": text,
                "lastTransitionTime": times.format_time(self._wiring.now_seconds()),
                "observedGeneration": generation,
            }
        )
        tree = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": definition.metadata.name, "resourceVersion": definition.metadata.resource_version},
            "status": body,
        }
        patch = Patch(PatchType.APPLY, tree, field_manager=CRD_MANAGER, force=True)
        yield Change(_DEFINITIONS, "", definition.metadata.name, patch, "status")

    def _condition(self, one: Migration, kind: str, reason: str, text: str) -> Steps[Migration]:
        changed = serialization.copy(one)
        if not any(each.type == kind for each in changed.status.conditions):
            now = times.format_time(self._wiring.now_seconds())
            changed.status.conditions.append(
                meta.Condition(type=kind, status="True", last_transition_time=now, reason=reason, message=text)
            )
        updated: Migration = yield Update(changed, "status")
        return updated

    def _fail(self, one: Migration, text: str) -> Steps[None]:
        yield from self._condition(one, FAILED, "StorageVersionMigrationFailed", text)

    # ---- the work

    def _run(self, one: Migration) -> Steps[None]:
        found = yield from discover()
        wanted = one.spec.resource
        resource = next(
            (each for each in found.preferred if (each.group, each.plural) == (wanted.group, wanted.resource)), None
        )
        if resource is None:
            made = one.metadata.creation_timestamp
            if made is not None and self._wiring.now_seconds() < times.parse(made) + WAIT_SECONDS:
                raise Retry("resource does not exist in our rest mapper, requeuing to attempt again")
            yield from self._fail(one, "resource does not exist in discovery")
            return
        if not set(VERBS) <= set(resource.verbs):
            name = f"{resource.group}/{resource.version}, Resource={resource.plural}"
            text = f'resource "{name}" does not support discovery operations: [{" ".join(VERBS)}]'
            yield from self._fail(one, text)
            return
        if not one.status.resource_version:
            page = yield from self._page(resource, "", 1)
            changed = serialization.copy(one)
            changed.status.resource_version = page.metadata.resource_version
            one = yield Update(changed, "status")
        failure = yield from self._rewrite(resource, int(one.status.resource_version))
        if failure:
            yield from self._fail(one, f"migration encountered unhandled error: {failure}")
        else:
            yield from self._condition(one, SUCCEEDED, "StorageVersionMigrationSucceeded", "")

    def _rewrite(self, resource: Resource[Any], mark: int) -> Steps[str]:
        """Apply every object that is older than the mark; return what no further try would mend, "" for nothing."""
        token = ""
        while True:
            page = yield from self._page(resource, token, PAGE_OBJECTS)
            for item in page.items:
                metadata = item.metadata
                if int(metadata.resource_version) > mark:
                    continue
                tree = {
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
                }
                patch = Patch(PatchType.APPLY, tree, field_manager=MANAGER)
                try:
                    yield Change(resource, metadata.namespace, metadata.name, patch)
                except (apierrors.Conflict, apierrors.NotFound):
                    continue  # Written or deleted meanwhile: nothing is left to migrate.
                except _PASSING:
                    raise
                except apierrors.ApiError as error:
                    return error.message
            token = page.metadata.continue_
            if not token:
                return ""

    @staticmethod
    def _page(resource: Resource[Any], token: str, limit: int) -> Steps[meta.PartialObjectMetadataList]:
        path = f"{resource.path()}?limit={limit}" + (f"&continue={token}" if token else "")
        body = yield Request("GET", path, headers=_ROWS)
        return serialization.decode(body, meta.PartialObjectMetadataList)
