"""DeviceTaintRules and ResourcePoolStatusRequests: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#device-taints-and-tolerations
"""

from __future__ import annotations

import time
from typing import Any

from haven.api.core.validation.volumes import validate_csi_driver_name
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy, status_strategy
from haven.api.resource import v1alpha3
from haven.api.resource.checks import validate_pool_name, validate_taint
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required, too_long, too_many
from haven.apimachinery.times import format_time
from haven.apimachinery.validation.labels import validate_conditions
from haven.apimachinery.validation.names import (
    dns1123_label_errors,
    dns1123_subdomain_caseless_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
)
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["STRATEGIES"]

CONDITIONS_MAX, NAME_MAX = 8, 253
LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
_SPEC, _STATUS = Path("spec"), Path("status")


def _default_rule(rule: Any) -> None:
    if rule.spec.taint.time_added is None:
        rule.spec.taint.time_added = format_time(time.time())


def _update_rule(new: Any, old: Any) -> None:
    taint, before = new.spec.taint, old.spec.taint
    if taint.effect != before.effect and taint.time_added == before.time_added:
        taint.time_added = format_time(time.time())


def _check_rule(rule: Any, old: Any | None = None) -> ErrorList:
    errors: ErrorList = []
    selector, place = rule.spec.device_selector, _SPEC.child("deviceSelector")
    if selector is not None:
        if selector.driver is not None:
            errors += validate_csi_driver_name(selector.driver, place.child("driver"))
        if selector.pool is not None:
            errors += validate_pool_name(selector.pool, place.child("pool"))
        if selector.device is not None:
            device = selector.device
            errors += [invalid(place.child("device"), device, text) for text in dns1123_label_errors(device)]
    taint = rule.spec.taint
    found = validate_taint(taint, _SPEC.child("taint"))
    if old is not None and old.spec.taint.effect == taint.effect:  # An effect of older days may stay.
        found = [error for error in found if error.field != "spec.taint.effect"]
    errors += found
    return errors


def _check_rule_status(new: Any, _old: Any) -> ErrorList:
    path, conditions = _STATUS.child("conditions"), new.status.conditions
    errors = validate_conditions(conditions, path)
    if len(conditions) > CONDITIONS_MAX:
        errors.append(too_many(path, len(conditions), CONDITIONS_MAX))
    return errors


def _default_request(request: v1alpha3.ResourcePoolStatusRequest) -> None:
    if request.spec.limit is None:
        request.spec.limit = LIMIT_DEFAULT


def _check_request(request: v1alpha3.ResourcePoolStatusRequest) -> ErrorList:
    spec, errors = request.spec, []
    if not spec.driver:
        errors.append(required(_SPEC.child("driver"), ""))
    else:
        place = _SPEC.child("driver")
        errors += [invalid(place, spec.driver, text) for text in dns1123_subdomain_caseless_errors(spec.driver)]
    if spec.pool_name is not None:
        errors += _segments(spec.pool_name, _SPEC.child("poolName"))
    limit, place = spec.limit, _SPEC.child("limit")
    if limit is not None and limit < 1:
        errors.append(invalid(place, limit, "must be greater than or equal to 1"))
    if limit is not None and limit > LIMIT_MAX:
        errors.append(invalid(place, limit, f"must be less than or equal to {LIMIT_MAX}"))
    return errors


def _segments(name: str, path: Path) -> ErrorList:
    errors: ErrorList = [too_long(path, "", NAME_MAX)] if len(name) > NAME_MAX else []
    for index, part in enumerate(name.split("/")):
        if not part:
            errors.append(invalid(path, name, f"segment {index}: must not be empty"))
        errors += [invalid(path, part, f"segment {index}: {text}") for text in dns1123_subdomain_errors(part) if part]
    return errors


def _same_request(new: v1alpha3.ResourcePoolStatusRequest, old: v1alpha3.ResourcePoolStatusRequest) -> ErrorList:
    return [] if new.spec == old.spec else [invalid(_SPEC, None, IMMUTABLE)]


def _check_request_status(
    new: v1alpha3.ResourcePoolStatusRequest, old: v1alpha3.ResourcePoolStatusRequest
) -> ErrorList:
    if old.status is not None:
        return [] if new.status == old.status else [invalid(_STATUS, internal_form(new.status), IMMUTABLE)]
    if new.status is None:
        return []
    return validate_conditions(new.status.conditions, _STATUS.child("conditions"))


def _no_status(new: v1alpha3.ResourcePoolStatusRequest) -> None:
    new.status = None


def _keep_status(new: v1alpha3.ResourcePoolStatusRequest, old: v1alpha3.ResourcePoolStatusRequest) -> None:
    new.status = old.status


STRATEGIES: dict[str, Strategy[Any]] = {
    "devicetaintrules": kind_strategy(
        namespaced=False,
        name_rule=dns_subdomain_name,
        default=_default_rule,
        check=_check_rule,
        check_old=_check_rule,
        update=_update_rule,
        has_generation=True,
        has_status=True,
        subresources={
            "status": status_strategy(default=_default_rule, check_update=_check_rule_status, resets_metadata=True)
        },
    ),
    "resourcepoolstatusrequests": kind_strategy(
        namespaced=False,
        name_rule=dns_subdomain_name,
        default=_default_request,
        check=_check_request,
        check_old=lambda new, old: [],
        check_update=_same_request,
        create=_no_status,
        update=_keep_status,
        order=UpdateOrder.META_THEN_SPEC,
        allow_unconditional_update=False,
        subresources={
            "status": status_strategy(
                default=_default_request, check_update=_check_request_status, resets_metadata=True
            )
        },
    ),
}
"""Strategies by plural name; the rules are stored as v1beta2, the requests as v1alpha3."""
