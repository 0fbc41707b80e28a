"""How workloads are written: which rules belong to which resource.

Source: the behaviour of pkg/registry/apps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from haven.api.apps import defaults, statefulset, v1, validation
from haven.api.core.podwarnings import claim_spec_warnings, name_warnings, template_warnings
from haven.api.core.validation.pod import PodOptions, pod_options
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path
from haven.apimachinery.validation.labels import selector_has_invalid_value
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors

__all__ = ["STRATEGIES"]

_TEMPLATE = Path("spec", "template")


def _options(old: Any | None) -> PodOptions:
    return pod_options(old.spec.template.spec if old is not None else None, is_pod=False)


def _create(new: Any) -> None:
    new.status = type(new.status)()
    new.metadata.generation = 1


def _update(new: Any, old: Any) -> None:
    new.status = old.status
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _update_deployment(new: v1.Deployment, old: v1.Deployment) -> None:
    _update(new, old)
    if new.metadata.annotations != old.metadata.annotations:
        new.metadata.generation = old.metadata.generation + 1


def _update_status(new: Any, old: Any) -> None:
    new.spec = old.spec


def _update_deployment_status(new: v1.Deployment, old: v1.Deployment) -> None:
    new.spec = old.spec
    new.metadata.labels = old.metadata.labels


def _set_template_generation(daemon_set: v1.DaemonSet, generation: int) -> None:
    daemon_set.metadata.annotations = {
        **daemon_set.metadata.annotations,
        validation.TEMPLATE_GENERATION: str(generation),
    }


def _create_daemon_set(new: v1.DaemonSet) -> None:
    _create(new)
    _set_template_generation(new, max(1, validation.template_generation(new)))


def _update_daemon_set(new: v1.DaemonSet, old: v1.DaemonSet) -> None:
    _update(new, old)
    changed = new.spec.template != old.spec.template
    _set_template_generation(new, validation.template_generation(old) + changed)


def _update_daemon_set_status(new: v1.DaemonSet, old: v1.DaemonSet) -> None:
    new.spec = old.spec
    _set_template_generation(new, validation.template_generation(old))


def _checked(check: Callable[[Any, PodOptions], ErrorList]) -> Callable[[Any], ErrorList]:
    return lambda new: check(new, _options(None))


def _checked_update(check: Callable[[Any, Any, PodOptions], ErrorList]) -> Callable[[Any, Any], ErrorList]:
    return lambda new, old: check(new, old, _options(old))


def _validate_daemon_set_update(new: v1.DaemonSet, old: v1.DaemonSet) -> ErrorList:
    options = _options(old)
    if selector_has_invalid_value(old.spec.selector):
        options = PodOptions(
            **{name: getattr(options, name) for name in PodOptions.__slots__} | {"allow_invalid_selector": True}
        )
    return validation.validate_daemon_set_update(new, old, options)


def _warnings(named: bool) -> Callable[[Any, Any | None], list[str]]:
    def warn(new: Any, old: Any | None) -> list[str]:
        if old is not None and new.metadata.generation == old.metadata.generation:
            return []
        found = name_warnings(new.metadata.name) if named and old is None else []
        return found + template_warnings(new.spec.template, _TEMPLATE)

    return warn


def _stateful_set_warnings(new: v1.StatefulSet, old: v1.StatefulSet | None) -> list[str]:
    warnings = _warnings(False)(new, old)
    for index, claim in enumerate(new.spec.volume_claim_templates):
        place = Path("spec", "volumeClaimTemplates").index(index)
        warnings += claim_spec_warnings(claim.spec, place if old is None else place.child("Spec"))
    limit = new.spec.revision_history_limit
    if limit is not None and limit < 0:
        advice = "a negative value retains all historical revisions; a value >= 0 is recommended"
        warnings.append(f"spec.revisionHistoryLimit: {advice}")
    return warnings


def _subdomain(name: str) -> list[str]:
    return list(dns1123_subdomain_errors(name))


STRATEGIES: dict[str, Strategy[Any]] = {
    "deployments": Strategy(
        default=defaults.default_deployment,
        prepare_for_create=_create,
        validate=_checked(validation.validate_deployment),
        prepare_for_update=_update_deployment,
        validate_update=_checked_update(validation.validate_deployment_update),
        warnings=_warnings(True),
        name_errors=_subdomain,
        has_generation=True,
        subresources={
            "status": Strategy(
                default=defaults.default_deployment,
                prepare_for_update=_update_deployment_status,
                validate_update=validation.validate_deployment_status_update,
            )
        },
    ),
    "replicasets": Strategy(
        default=defaults.default_replica_set,
        prepare_for_create=_create,
        validate=_checked(validation.validate_replica_set),
        prepare_for_update=_update,
        validate_update=_checked_update(validation.validate_replica_set_update),
        warnings=_warnings(True),
        name_errors=_subdomain,
        has_generation=True,
        selectable_fields={"status.replicas": lambda item: str(item.status.replicas)},
        subresources={
            "status": Strategy(
                default=defaults.default_replica_set,
                prepare_for_update=_update_status,
                validate_update=validation.validate_replica_set_status_update,
            )
        },
    ),
    "daemonsets": Strategy(
        default=defaults.default_daemon_set,
        prepare_for_create=_create_daemon_set,
        validate=_checked(validation.validate_daemon_set),
        prepare_for_update=_update_daemon_set,
        validate_update=_validate_daemon_set_update,
        warnings=_warnings(False),
        name_errors=_subdomain,
        has_generation=True,
        subresources={
            "status": Strategy(
                default=defaults.default_daemon_set,
                prepare_for_update=_update_daemon_set_status,
                validate_update=validation.validate_daemon_set_status_update,
            )
        },
    ),
    "statefulsets": Strategy(
        default=defaults.default_stateful_set,
        prepare_for_create=_create,
        validate=_checked(statefulset.validate_stateful_set),
        prepare_for_update=_update,
        validate_update=_checked_update(statefulset.validate_stateful_set_update),
        warnings=_stateful_set_warnings,
        name_errors=lambda name: list(dns1123_label_errors(name)),
        has_generation=True,
        subresources={
            "status": Strategy(
                default=defaults.default_stateful_set,
                prepare_for_update=_update_status,
                validate_update=statefulset.validate_stateful_set_status_update,
            )
        },
    ),
    "controllerrevisions": Strategy(
        validate=validation.validate_controller_revision,
        validate_update=validation.validate_controller_revision_update,
        name_errors=_subdomain,
    ),
}
