"""Strategies of kinds that follow the common pattern: metadata, a spec, perhaps a status with an endpoint of its own.

Upstream's kinds differ in how an update is checked, and clients can count the complaints: `UpdateOrder` names the ways.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.strategy import FieldSelectors, Strategy, no_errors, no_errors_update, no_warnings, nothing
from haven.apimachinery.fielderrors import ErrorList
from haven.apimachinery.validation.names import dns_subdomain_name, path_segment_name
from haven.apimachinery.validation.objectmeta import NameRule

__all__ = ["UpdateOrder", "keep_metadata", "kind_strategy", "status_strategy"]

Check = Callable[[Any], ErrorList]
CheckUpdate = Callable[[Any, Any], ErrorList]


class UpdateOrder(Enum):
    """What an update checks besides its own rules, in this order."""

    META_THEN_SPEC = "changes of metadata, then the spec"
    WHOLE_THEN_META = "the object as if new, then changes of metadata"
    META_THEN_WHOLE = "changes of metadata, then the object as if new"
    META_ONLY = "changes of metadata"
    WHOLE_ONLY = "the object as if new"
    META_CHANGE_WHOLE = "changes of metadata, then own changes, then the object as if new"


def kind_strategy(
    *,
    namespaced: bool,
    name_rule: NameRule | None = dns_subdomain_name,
    default: Callable[[Any], None] = nothing,
    check: Check = no_errors,
    check_update: CheckUpdate = no_errors_update,
    check_old: CheckUpdate | None = None,
    order: UpdateOrder = UpdateOrder.META_THEN_SPEC,
    create: Callable[[Any], None] = nothing,
    update: Callable[[Any, Any], None] = nothing,
    warnings: Callable[[Any, Any | None], list[str]] = no_warnings,
    has_generation: bool = False,
    has_status: bool = False,
    selectable_fields: FieldSelectors | None = None,
    subresources: dict[str, Strategy[Any]] | None = None,
    allow_create_on_update: bool = False,
    allow_unconditional_update: bool = True,
    counts_empty: str = "",
) -> Strategy[Any]:
    """Return the Strategy of a kind.

    `check(new)` complains about an object's own fields, `check_old(new, old)` does so on updates if leniency towards
    older objects matters, `check_update(new, old)` about changes. Without a name rule only the registry looks at the
    metadata. A status is reset on create and kept on update; a
    generation counts changes of the spec.
    """

    def validate(new: Any) -> ErrorList:
        return whole_meta(new) + check(new)

    def whole_meta(new: Any) -> ErrorList:
        if name_rule is None:
            return []
        return validate_meta(new.metadata, namespaced=namespaced, name_rule=name_rule)

    def validate_update(new: Any, old: Any) -> ErrorList:
        own = check_old(new, old) if check_old is not None else check(new)
        meta = validate_meta_update(new.metadata, old.metadata) if name_rule is not None else []
        if order is UpdateOrder.META_THEN_SPEC:
            errors = meta + own
        elif order is UpdateOrder.META_ONLY:
            errors = meta
        else:
            whole = whole_meta(new) + own
            if order is UpdateOrder.META_CHANGE_WHOLE:
                return meta + check_update(new, old) + whole
            errors = {UpdateOrder.WHOLE_THEN_META: whole + meta, UpdateOrder.WHOLE_ONLY: whole}.get(order, meta + whole)
        return errors + check_update(new, old)

    def prepare_for_create(new: Any) -> None:
        if has_status:
            new.status = type(new.status)() if new.status is not None else None
        if has_generation:
            new.metadata.generation = 1
        create(new)

    def prepare_for_update(new: Any, old: Any) -> None:
        if has_status:
            new.status = old.status
        update(new, old)
        if has_generation and new.spec != old.spec:
            new.metadata.generation = old.metadata.generation + 1

    return Strategy(
        default=default,
        prepare_for_create=prepare_for_create,
        validate=validate,
        prepare_for_update=prepare_for_update,
        validate_update=validate_update,
        warnings=warnings,
        name_errors=lambda name: list((name_rule or path_segment_name)(name, False)),
        has_generation=has_generation,
        selectable_fields=selectable_fields or {},
        subresources=subresources or {},
        allow_create_on_update=allow_create_on_update,
        allow_unconditional_update=allow_unconditional_update,
        counts_empty=counts_empty,
    )


def status_strategy(
    *,
    default: Callable[[Any], None] = nothing,
    check_update: CheckUpdate = no_errors_update,
    update: Callable[[Any, Any], None] = nothing,
    resets_metadata: bool = False,
    checks_metadata: bool = True,
) -> Strategy[Any]:
    """Return the Strategy of a /status: the spec stays, and with `resets_metadata` most metadata too."""

    def prepare_for_update(new: Any, old: Any) -> None:
        new.spec = old.spec
        if resets_metadata:
            keep_metadata(new, old)
        update(new, old)

    def validate_update(new: Any, old: Any) -> ErrorList:
        meta = validate_meta_update(new.metadata, old.metadata) if checks_metadata else []
        return meta + check_update(new, old)

    return Strategy(default=default, prepare_for_update=prepare_for_update, validate_update=validate_update)


def keep_metadata(new: Any, old: Any) -> None:
    """Restore the metadata that only the main endpoint may change."""
    metadata, before = new.metadata, old.metadata
    metadata.deletion_timestamp = before.deletion_timestamp
    metadata.generation = before.generation
    metadata.self_link = before.self_link
    metadata.labels = before.labels
    metadata.annotations = before.annotations
    metadata.finalizers = before.finalizers
    metadata.owner_references = before.owner_references
