"""APIServices: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/ and the behaviour of
kube-aggregator.
"""

from __future__ import annotations

from typing import Any

from haven.api.apiregistration import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported, required
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import (
    dns1035_label_errors,
    dns1123_subdomain_errors,
    path_segment_name,
    port_number_errors,
)
from haven.apimachinery.validation.objectmeta import validate_object_meta, validate_object_meta_update

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_STATUSES = ("True", "False", "Unknown")


def _default(service: v1.APIService) -> None:
    reference = service.spec.service
    if reference is not None and reference.port is None:
        reference.port = 443


def _create(new: v1.APIService) -> None:
    new.status = v1.APIServiceStatus()
    if new.spec.service is None:
        new.status.conditions = [
            v1.APIServiceCondition(
                type="Available",
                status="True",
                last_transition_time=new.metadata.creation_timestamp,
                reason="Local",
                message="Local APIServices are always available",
            )
        ]


def _update(new: v1.APIService, old: v1.APIService) -> None:
    new.status = old.status


def _check(service: v1.APIService) -> ErrorList:
    spec = service.spec
    wanted = f"{spec.version}.{spec.group}"

    def name_rule(name: str, prefix: bool = False) -> tuple[str, ...]:
        if unfit := path_segment_name(name, prefix):
            return tuple(unfit)
        return () if name == wanted else (f'must be `spec.version+"."+spec.group`: {quote(wanted)}',)

    errors = validate_object_meta(service.metadata, namespaced=False, name_rule=name_rule)
    place = _SPEC.child("group")
    if not spec.group and spec.version != "v1":
        errors.append(required(place, "only v1 may have an empty group and it better be legacy kube"))
    if spec.group:
        errors += [invalid(place, spec.group, text) for text in dns1123_subdomain_errors(spec.group)]
    errors += [invalid(_SPEC.child("version"), spec.version, text) for text in dns1035_label_errors(spec.version)]
    for name, value, limit in (
        ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
        ("versionPriority", spec.version_priority, 1000),
    ):
        if not 0 < value <= limit:
            errors.append(invalid(_SPEC.child(name), value, f"must be positive and less than {limit}"))
    return errors + (_check_local(spec) if spec.service is None else _check_remote(spec, spec.service))


def _check_local(spec: v1.APIServiceSpec) -> ErrorList:
    errors: ErrorList = []
    if spec.ca_bundle:
        words = "local APIServices may not have a caBundle"
        errors.append(invalid(_SPEC.child("caBundle"), f"{len(spec.ca_bundle)} bytes", words))
    if spec.insecure_skip_tls_verify:
        words = "local APIServices may not have insecureSkipTLSVerify"
        errors.append(invalid(_SPEC.child("insecureSkipTLSVerify"), True, words))
    return errors


def _check_remote(spec: v1.APIServiceSpec, reference: v1.ServiceReference) -> ErrorList:
    errors: ErrorList = []
    path = _SPEC.child("service")
    if not reference.namespace:
        errors.append(required(path.child("namespace"), ""))
    if not reference.name:
        errors.append(required(path.child("name"), ""))
    port = reference.port or 0
    if complaints := port_number_errors(port):
        errors.append(invalid(path.child("port"), port, "port is not valid: " + ", ".join(complaints)))
    if spec.insecure_skip_tls_verify and spec.ca_bundle:
        words = "may not be true if caBundle is present"
        errors.append(invalid(_SPEC.child("insecureSkipTLSVerify"), True, words))
    return errors


def _check_update(new: v1.APIService, old: v1.APIService) -> ErrorList:
    return validate_object_meta_update(new.metadata, old.metadata) + _check(new)


def _update_status(new: v1.APIService, old: v1.APIService) -> None:
    new.spec = old.spec
    metadata, before = new.metadata, old.metadata
    metadata.labels, metadata.annotations = before.labels, before.annotations
    metadata.finalizers, metadata.owner_references = before.finalizers, before.owner_references


def _check_status(new: v1.APIService, old: v1.APIService) -> ErrorList:
    path = Path("status", "conditions")
    return validate_object_meta_update(new.metadata, old.metadata) + [
        not_supported(path.index(index).child("status"), condition.status, _STATUSES)
        for index, condition in enumerate(new.status.conditions)
        if condition.status not in _STATUSES
    ]


STRATEGIES: dict[str, Strategy[Any]] = {
    "apiservices": Strategy(
        default=_default,
        prepare_for_create=_create,
        prepare_for_update=_update,
        validate=_check,
        validate_update=_check_update,
        name_errors=lambda name: list(path_segment_name(name, False)),
        subresources={
            "status": Strategy(default=_default, prepare_for_update=_update_status, validate_update=_check_status)
        },
        allow_unconditional_update=False,
    )
}
