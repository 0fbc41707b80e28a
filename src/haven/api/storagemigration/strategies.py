"""StorageVersionMigrations: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/storage-version-migration/ and the behaviour of
pkg/apis/storagemigration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, keep_metadata, kind_strategy, status_strategy
from haven.api.storagemigration import v1beta1
from haven.api.strategy import Strategy
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.validation.labels import validate_conditions
from haven.apimachinery.validation.names import dns1035_label_errors, dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["STRATEGIES"]

Migration = v1beta1.StorageVersionMigration

_RESOURCE = Path("spec", "resource")


def _check(migration: Migration) -> ErrorList:
    errors: ErrorList = []
    resource, group = migration.spec.resource.resource, migration.spec.resource.group
    place = _RESOURCE.child("resource")
    if not resource:
        errors.append(required(place, "resource is required to be set"))
    elif complaints := dns1035_label_errors(resource):
        errors.append(invalid(place, resource, ",".join(complaints)))
    if group and (complaints := dns1123_subdomain_errors(group)):
        errors.append(invalid(_RESOURCE.child("group"), group, ",".join(complaints)))
    return errors


def _check_update(new: Migration, old: Migration) -> ErrorList:
    return [] if new.spec == old.spec else [invalid(Path("spec"), internal_form(new.spec), IMMUTABLE)]


def _holds(conditions: Sequence[meta.Condition], name: str) -> bool:
    return any(condition.type == name and condition.status == "True" for condition in conditions)


def _check_status(new: Migration, old: Migration) -> ErrorList:
    path = Path("status")
    before, conditions = old.status, new.status.conditions
    errors = validate_conditions(conditions, path.child("conditions"))
    if before.resource_version and before.resource_version != new.status.resource_version:
        errors.append(invalid(path.child("resourceVersion"), new.status.resource_version, IMMUTABLE))
    place, shown = path.child("conditions"), [internal_form(condition) for condition in conditions]
    succeeded, failed = _holds(conditions, "Succeeded"), _holds(conditions, "Failed")
    if succeeded and failed:
        words = "Both success and failed conditions cannot be true at the same time"
        errors.append(invalid(place, shown, words))
    for name, is_true, word in (("Succeeded", succeeded, "Success"), ("Failed", failed, "Failed")):
        if _holds(before.conditions, name) and not is_true:
            errors.append(invalid(place, shown, f"{word} condition cannot be set to false once it is true"))
    return errors


STRATEGIES: dict[str, Strategy[Any]] = {
    "storageversionmigrations": kind_strategy(
        namespaced=False,
        check=_check,
        check_update=_check_update,
        order=UpdateOrder.WHOLE_THEN_META,
        has_status=True,
        subresources={"status": status_strategy(check_update=_check_status, update=keep_metadata)},
    )
}
