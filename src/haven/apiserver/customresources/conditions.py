"""What becomes of a definition's status: which names it gets, and what its conditions say.

Source: apiextensions-apiserver's controllers for names, establishing, structural schemas and API approval.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from haven.api.apiextensions import v1
from haven.api.apiextensions.schemas import structural_errors
from haven.api.apiextensions.strategies import approval_state
from haven.apimachinery.fielderrors import ErrorList, Path, aggregate, invalid
from haven.apimachinery.goformat import quote
from haven.apiserver.customresources.cabundles import is_sound_bundle
from haven.apiserver.customresources.definition import condition, is_true

__all__ = ["FINALIZER", "is_served", "needs_finalizing", "next_status", "set_condition", "with_condition"]

CRD = v1.CustomResourceDefinition
Status = v1.CustomResourceDefinitionStatus
Condition = v1.CustomResourceDefinitionCondition
Names = v1.CustomResourceDefinitionNames

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_PROTECTED = ("k8s.io", "kubernetes.io")
_APPROVAL_REASONS = {
    "missing": ("False", "MissingAnnotation"),
    "invalid": ("False", "InvalidAnnotation"),
    "bypassed": ("False", "UnapprovedAnnotation"),
    "approved": ("True", "ApprovedAnnotation"),
}


def next_status(crd: CRD, others: Iterable[CRD], now: str) -> Status:
    """Return the status that a definition should have; `others` are those of the same group, without this one."""
    status = msgspec.structs.replace(crd.status, conditions=list(crd.status.conditions or ()))
    _structural(crd, status, now)
    approval = _approval(crd)
    if approval is not None:
        set_condition(status, approval, now)
    if crd.spec.names != status.accepted_names:
        names, accepted, established = _names(crd, others)
        status.accepted_names = names
        set_condition(status, accepted, now)
        set_condition(status, established, now)
    if _holds(status, "NamesAccepted") and not _holds(status, "Established"):
        set_condition(status, _established(crd), now)
    return status if status.conditions else msgspec.structs.replace(status, conditions=crd.status.conditions)


def _holds(status: Status, kind: str) -> bool:
    return any(one.type == kind and one.status == "True" for one in status.conditions or ())


def set_condition(status: Status, new: Condition, now: str) -> None:
    """Put a condition in place; its time changes with its status only."""
    conditions = list(status.conditions or ())
    for index, old in enumerate(conditions):
        if old.type == new.type:
            since = old.last_transition_time if old.status == new.status else now
            conditions[index] = msgspec.structs.replace(new, last_transition_time=since)
            break
    else:
        conditions.append(msgspec.structs.replace(new, last_transition_time=now))
    status.conditions = conditions


def with_condition(crd: CRD, new: Condition, now: str) -> Status:
    """Return a definition's status with a condition."""
    status = msgspec.structs.replace(crd.status)
    set_condition(status, new, now)
    return status


def _names(crd: CRD, others: Iterable[CRD]) -> tuple[Names, Condition, Condition]:
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in (*others, crd):
        taken = other.status.accepted_names
        resources |= {taken.plural, taken.singular, *taken.short_names}
        kinds |= {taken.kind, taken.list_kind}
    wanted, had = crd.spec.names, crd.status.accepted_names
    names = msgspec.structs.replace(had)
    accepted = Condition(type="NamesAccepted", status="True", reason="NoConflicts", message="no conflicts found")

    def conflict(reason: str, message: str) -> None:
        accepted.status, accepted.reason, accepted.message = "False", reason, message

    for field, reason, used in (("plural", "PluralConflict", resources), ("singular", "SingularConflict", resources)):
        _claim(wanted, had, names, field, reason, used, conflict)
    if wanted.short_names != had.short_names:
        taken_short = [one for one in wanted.short_names if one not in had.short_names and one in resources]
        if taken_short:
            texts = list(dict.fromkeys(f"{quote(one)} is already in use" for one in taken_short))
            conflict("ShortNamesConflict", texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
        else:
            names.short_names = wanted.short_names
    for field, reason, used in (("kind", "KindConflict", kinds), ("list_kind", "ListKindConflict", kinds)):
        _claim(wanted, had, names, field, reason, used, conflict)
    names.categories = wanted.categories
    established = condition(crd, "Established") or Condition(
        type="Established", status="False", reason="NotAccepted", message="not all names are accepted"
    )
    if established.status != "True" and accepted.status == "True":
        established = Condition(
            type="Established", status="False", reason="Installing", message="the initial names have been accepted"
        )
    return names, accepted, established


def _claim(wanted: Names, had: Names, names: Names, field: str, reason: str, used: set[str], conflict: object) -> None:
    value = getattr(wanted, field)
    if value != getattr(had, field) and value in used:
        assert callable(conflict)
        conflict(reason, f"{quote(value)} is already in use")
    else:
        setattr(names, field, value)


def _established(crd: CRD) -> Condition:
    conversion = crd.spec.conversion
    webhook = conversion.webhook if conversion is not None else None
    client = webhook.client_config if webhook is not None else None
    if client is not None and not is_sound_bundle(client.ca_bundle):
        return Condition(
            type="Established",
            status="False",
            reason="InvalidCABundle",
            message="The conversion webhook CABundle is invalid",
        )
    return Condition(
        type="Established",
        status="True",
        reason="InitialNamesAccepted",
        message="the initial names have been accepted",
    )


def _structural(crd: CRD, status: Status, now: str) -> None:
    errors: ErrorList = []
    if crd.spec.preserve_unknown_fields:
        errors.append(invalid(Path("spec", "preserveUnknownFields"), True, "must be false"))
    for index, version in enumerate(crd.spec.versions or ()):
        schema = version.schema.open_apiv3_schema if version.schema is not None else None
        if schema is not None:
            path = Path("spec", "versions").index(index).child("schema", "openAPIV3Schema")
            errors += structural_errors(schema, path)
    if errors:
        new = Condition(type="NonStructuralSchema", status="True", reason="Violations", message=aggregate(errors))
        set_condition(status, new, now)
    elif status.conditions:
        status.conditions = [one for one in status.conditions if one.type != "NonStructuralSchema"]


def _approval(crd: CRD) -> Condition | None:
    group = crd.spec.group
    if group not in _PROTECTED and not group.endswith(tuple("." + one for one in _PROTECTED)):
        return None
    state, message = approval_state(crd)
    status, reason = _APPROVAL_REASONS[state]
    return Condition(type="KubernetesAPIApprovalPolicyConformant", status=status, reason=reason, message=message)


def needs_finalizing(crd: CRD) -> bool:
    """Tell whether a deleted definition waits for its instances to be removed."""
    return bool(crd.metadata.deletion_timestamp) and FINALIZER in crd.metadata.finalizers


def is_served(crd: CRD) -> bool:
    """Tell whether requests for a definition's objects are answered."""
    return is_true(crd, "NamesAccepted") or is_true(crd, "Established")
