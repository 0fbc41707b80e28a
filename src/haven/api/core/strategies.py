"""How objects of the core group are written: which rules belong to which resource.

Source: the behaviour of pkg/registry/core.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import defaults, v1
from haven.api.core.podstrategy import POD
from haven.api.core.replication import POD_TEMPLATE, REPLICATION_CONTROLLER
from haven.api.core.validation import config, event, namespace
from haven.api.strategy import Strategy
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors

__all__ = ["STRATEGIES"]


def _create_namespace(new: v1.Namespace) -> None:
    new.status = v1.NamespaceStatus(phase="Active")
    if "kubernetes" not in new.spec.finalizers:
        new.spec.finalizers = [*new.spec.finalizers, "kubernetes"]
    new.metadata.labels = {**new.metadata.labels, "kubernetes.io/metadata.name": new.metadata.name}


def _update_namespace(new: v1.Namespace, old: v1.Namespace) -> None:
    new.spec.finalizers = old.spec.finalizers
    new.status = old.status
    new.metadata.labels = {**new.metadata.labels, "kubernetes.io/metadata.name": new.metadata.name}


def _update_namespace_status(new: v1.Namespace, old: v1.Namespace) -> None:
    new.spec = old.spec
    new.metadata.labels = {**new.metadata.labels, "kubernetes.io/metadata.name": new.metadata.name}


def _finalize_namespace(new: v1.Namespace, old: v1.Namespace) -> None:
    new.status = old.status
    new.metadata.labels = {**new.metadata.labels, "kubernetes.io/metadata.name": new.metadata.name}


def _clean_secret_references(new: v1.ServiceAccount, _old: v1.ServiceAccount | None = None) -> None:
    new.secrets = [v1.ObjectReference(name=reference.name) for reference in new.secrets]


_ENFORCE_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"


def _service_account_warnings(new: v1.ServiceAccount, old: v1.ServiceAccount | None) -> list[str]:
    if old is not None and _ENFORCE_MOUNTABLE in old.metadata.annotations:
        return []
    if _ENFORCE_MOUNTABLE not in new.metadata.annotations:
        return []
    advice = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    return [f"metadata.annotations[{_ENFORCE_MOUNTABLE}]: {advice}"]


def _keep_secret_type(new: v1.Secret, old: v1.Secret) -> None:
    if not new.type:
        new.type = old.type


def _name(errors: Any) -> Any:
    return lambda name: list(errors(name))


_subdomain = _name(dns1123_subdomain_errors)

EVENT_FIELDS = {
    "involvedObject.kind": lambda event: event.involved_object.kind,
    "involvedObject.namespace": lambda event: event.involved_object.namespace,
    "involvedObject.name": lambda event: event.involved_object.name,
    "involvedObject.uid": lambda event: event.involved_object.uid,
    "involvedObject.apiVersion": lambda event: event.involved_object.api_version,
    "involvedObject.resourceVersion": lambda event: event.involved_object.resource_version,
    "involvedObject.fieldPath": lambda event: event.involved_object.field_path,
    "reason": lambda event: event.reason,
    "reportingComponent": lambda event: event.reporting_component,
    "source": lambda event: event.source.component or event.reporting_component,
    "type": lambda event: event.type,
}

STRATEGIES: dict[str, Strategy[Any]] = {
    "configmaps": Strategy(
        validate=config.validate_config_map,
        validate_update=config.validate_config_map_update,
        name_errors=_subdomain,
    ),
    "secrets": Strategy(
        default=defaults.default_secret,
        validate=config.validate_secret,
        prepare_for_update=_keep_secret_type,
        validate_update=config.validate_secret_update,
        name_errors=_subdomain,
        selectable_fields={"type": lambda secret: secret.type},
    ),
    "namespaces": Strategy(
        default=defaults.default_namespace,
        prepare_for_create=_create_namespace,
        validate=namespace.validate_namespace,
        prepare_for_update=_update_namespace,
        validate_update=namespace.validate_namespace_update,
        name_errors=_name(dns1123_label_errors),
        selectable_fields={"status.phase": lambda item: item.status.phase, "name": lambda item: item.metadata.name},
        subresources={
            "status": Strategy(
                default=defaults.default_namespace,
                prepare_for_update=_update_namespace_status,
                validate_update=namespace.validate_namespace_status_update,
            ),
            "finalize": Strategy(
                default=defaults.default_namespace,
                prepare_for_update=_finalize_namespace,
                validate_update=namespace.validate_namespace_finalize_update,
            ),
        },
    ),
    "serviceaccounts": Strategy(
        prepare_for_create=_clean_secret_references,
        validate=namespace.validate_service_account,
        prepare_for_update=_clean_secret_references,
        validate_update=namespace.validate_service_account_update,
        warnings=_service_account_warnings,
        name_errors=_subdomain,
    ),
    "events": Strategy(
        validate=event.validate_core_event,
        validate_update=event.validate_core_event_update,
        allow_create_on_update=True,
        selectable_fields=EVENT_FIELDS,
    ),
    "pods": POD,
    "podtemplates": POD_TEMPLATE,
    "replicationcontrollers": REPLICATION_CONTROLLER,
}
