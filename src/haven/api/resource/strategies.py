"""The kinds of dynamic resource allocation (of v1, as which they are stored), and how they are written."""

from __future__ import annotations

from typing import Any

from haven.api.core.resources import is_extended
from haven.api.core.validation.claims import validate_template_meta
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy
from haven.api.resource import v1
from haven.api.resource.checks import MAX_CONFIGS, validate_configuration, validate_items, validate_selectors
from haven.api.resource.claims import (
    default_claim_spec,
    update_claim_status,
    validate_claim,
    validate_claim_spec,
    validate_claim_status_update,
    validate_claim_update,
)
from haven.api.resource.slices import default_slice, validate_slice, validate_slice_update
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.validation.names import declared_subdomain_name
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")


def _default_claim(claim: v1.ResourceClaim) -> None:
    default_claim_spec(claim.spec)


def _create_claim(new: v1.ResourceClaim) -> None:
    new.status = v1.ResourceClaimStatus()


def _update_claim(new: v1.ResourceClaim, old: v1.ResourceClaim) -> None:
    new.status = old.status


def _default_template(template: v1.ResourceClaimTemplate) -> None:
    default_claim_spec(template.spec.spec)


def _check_template(template: v1.ResourceClaimTemplate) -> ErrorList:
    errors = validate_meta(template.metadata, namespaced=True)
    errors += validate_template_meta(template.spec.metadata, _SPEC.child("metadata"))
    return errors + validate_claim_spec(template.spec.spec, _SPEC.child("spec"))


def _check_template_update(new: v1.ResourceClaimTemplate, old: v1.ResourceClaimTemplate) -> ErrorList:
    errors = _check_template(new) + validate_meta_update(new.metadata, old.metadata)
    if new.spec != old.spec:
        errors.append(invalid(_SPEC, internal_form(new.spec), IMMUTABLE))
    return errors


def _check_class(new: v1.DeviceClass) -> ErrorList:
    spec = new.spec
    errors = validate_selectors(spec.selectors, _SPEC.child("selectors"))
    errors += validate_items(spec.config, MAX_CONFIGS, validate_configuration, _SPEC.child("config"))
    name = spec.extended_resource_name
    if name is not None and not is_extended(name):
        place = _SPEC.child("extendedResourceName")
        errors.append(invalid(place, name, "must be a valid extended resource name"))
    return errors


def _slice_warnings(new: v1.ResourceSlice, _old: v1.ResourceSlice | None) -> list[str]:
    driver = new.spec.driver
    if driver == driver.lower():
        return []
    return [f'spec.driver: driver names should be lowercase; "{driver}" contains uppercase characters']


def _first_generation(new: v1.ResourceSlice) -> None:
    new.metadata.generation = 1


def _count_changes(new: v1.ResourceSlice, old: v1.ResourceSlice) -> None:
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


STRATEGIES: dict[str, Strategy[Any]] = {
    "resourceclaims": Strategy(
        default=_default_claim,
        prepare_for_create=_create_claim,
        prepare_for_update=_update_claim,
        validate=validate_claim,
        validate_update=validate_claim_update,
        subresources={
            "status": Strategy(
                default=_default_claim,
                prepare_for_update=update_claim_status,
                validate_update=validate_claim_status_update,
            )
        },
    ),
    "resourceclaimtemplates": Strategy(
        default=_default_template, validate=_check_template, validate_update=_check_template_update
    ),
    "deviceclasses": kind_strategy(
        namespaced=False,
        name_rule=declared_subdomain_name,
        check=_check_class,
        order=UpdateOrder.WHOLE_THEN_META,
        has_generation=True,
    ),
    "resourceslices": Strategy(
        default=default_slice,
        prepare_for_create=_first_generation,
        prepare_for_update=_count_changes,
        validate=validate_slice,
        validate_update=validate_slice_update,
        warnings=_slice_warnings,
        has_generation=True,
        selectable_fields={
            "spec.nodeName": lambda one: one.spec.node_name or "",
            "spec.driver": lambda one: one.spec.driver,
        },
    ),
}
