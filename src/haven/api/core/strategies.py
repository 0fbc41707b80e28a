"""How objects of the core group are written: which rules belong to which resource.

Source: the behaviour of pkg/registry/core.
"""

from __future__ import annotations

import uuid
from typing import Any

from haven.api.core import defaults, v1
from haven.api.core.podstrategy import POD
from haven.api.core.replication import POD_TEMPLATE, REPLICATION_CONTROLLER
from haven.api.core.service import SERVICE
from haven.api.core.tlspair import key_pair_complaint
from haven.api.core.validation import (
    claims,
    claimupdate,
    config,
    endpoints,
    event,
    namespace,
    node,
    persistentvolume,
    quota,
)
from haven.api.core.volumewarnings import claim_warnings, volume_warnings
from haven.api.likeness import (
    ANNOTATIONS,
    LABELS,
    MICRO_TIME,
    SHORT_TEXT,
    SUBDOMAIN,
    TEXT_OR_NOTHING,
    TIME,
    Free,
    Likeness,
)
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.validation.addresses import cidr_warnings, ip_warnings
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


def _secret_warnings(new: v1.Secret, _old: v1.Secret | None) -> list[str]:
    if new.type != "kubernetes.io/tls":
        return []
    complaint = key_pair_complaint(new.data.get("tls.crt", b""), new.data.get("tls.key", b""))
    return [complaint] if complaint else []


def _name_limit_range(new: v1.LimitRange) -> None:
    """Give a LimitRange without a name, or a prefix for one, a random one."""
    new.metadata.name = new.metadata.name or str(uuid.uuid4())


def _name(errors: Any) -> Any:
    return lambda name: list(errors(name))


_subdomain = _name(dns1123_subdomain_errors)

_CONFIG_MAP_FREE = (
    Free(("metadata", "name"), SUBDOMAIN),
    LABELS,
    ANNOTATIONS,
    Free(("data", "*"), TEXT_OR_NOTHING),  # Bodies are far from the limit of all data together.
)

_EVENT_FREE = (
    Free(("metadata", "name"), SUBDOMAIN),
    *(Free(("involvedObject", name), SHORT_TEXT) for name in ("name", "uid", "resourceVersion", "fieldPath")),
    Free(("message",), SHORT_TEXT),
    Free(("firstTimestamp",), TIME),
    Free(("lastTimestamp",), TIME),
    Free(("eventTime",), MICRO_TIME),
)

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


def _reset_status(new: Any) -> None:
    new.status = type(new.status)()


def _keep_status(new: Any, old: Any) -> None:
    new.status = old.status


def _keep_spec(new: Any, old: Any) -> None:
    new.spec = old.spec


def _create_node(new: v1.Node) -> None:
    new.spec.config_source = None
    new.status.config = None


def _update_node(new: v1.Node, old: v1.Node) -> None:
    new.status = old.status
    if old.spec.config_source is None:
        new.spec.config_source = None


def _update_node_status(new: v1.Node, old: v1.Node) -> None:
    new.spec = old.spec
    if old.status.config is None:
        new.status.config = None


def _node_warnings(new: v1.Node, _old: v1.Node | None) -> list[str]:
    warnings = []
    if new.spec.config_source is not None:
        warnings.append("spec.configSource: the feature is removed")
    if new.spec.external_id:
        warnings.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for index, item in enumerate(new.spec.pod_cidrs):
        warnings += cidr_warnings(Path("spec", "podCIDRs").index(index), item)
    return warnings


def _quota_warnings(new: v1.ResourceQuota, old: v1.ResourceQuota | None) -> list[str]:
    if old is not None:
        return []
    warnings = []
    hard = new.spec.hard
    for resource in ("cpu", "memory", "storage", "ephemeral-storage"):
        name = f"requests.{resource}"
        if name not in hard and resource in ("cpu", "memory"):
            name = resource
        request, limit = hard.get(name), hard.get(f"limits.{resource}")
        if request is not None and limit is not None and request > limit:
            said = f"should be less than limits.{resource} ({limit})"
            warnings.append(f"ResourceQuota {name} ({request}) {said}")
    return warnings


def _create_volume(new: v1.PersistentVolume) -> None:
    created = new.metadata.creation_timestamp
    new.status = v1.PersistentVolumeStatus(phase="Pending", last_phase_transition_time=created)


def _update_volume_status(new: v1.PersistentVolume, old: v1.PersistentVolume) -> None:
    new.spec = old.spec
    if old.status.phase == new.status.phase and new.status.last_phase_transition_time is None:
        new.status.last_phase_transition_time = old.status.last_phase_transition_time


def _touch_volume_status(new: v1.PersistentVolume, old: v1.PersistentVolume, now: str) -> None:
    """Note when the phase changed, unless the client says so itself."""
    status, before = new.status, old.status
    unsaid = status.last_phase_transition_time in (None, before.last_phase_transition_time)
    if status.phase != before.phase and unsaid:
        status.last_phase_transition_time = now


def _create_claim(new: v1.PersistentVolumeClaim) -> None:
    new.status = v1.PersistentVolumeClaimStatus(phase="Pending")
    _normalize_sources(new.spec, None)


def _update_claim(new: v1.PersistentVolumeClaim, old: v1.PersistentVolumeClaim) -> None:
    new.status = old.status
    _normalize_sources(new.spec, old.spec)


def _normalize_sources(spec: v1.PersistentVolumeClaimSpec, old: v1.PersistentVolumeClaimSpec | None) -> None:
    """Let `dataSource` and `dataSourceRef` say the same; drop what older clients could not have meant."""
    in_use = old is not None and old.data_source is not None
    source, reference = spec.data_source, spec.data_source_ref
    if source is not None and reference is None and not in_use and not _is_known_source(source):
        spec.data_source = source = None
    if source is not None and reference is None:
        spec.data_source_ref = v1.TypedObjectReference(api_group=source.api_group, kind=source.kind, name=source.name)
    elif reference is not None and source is None and not reference.namespace:
        spec.data_source = v1.TypedLocalObjectReference(
            api_group=reference.api_group, kind=reference.kind, name=reference.name
        )


def _is_known_source(source: v1.TypedLocalObjectReference) -> bool:
    if source.kind == "PersistentVolumeClaim":
        return not source.api_group
    return source.kind == "VolumeSnapshot" and source.api_group == "snapshot.storage.k8s.io"


def _endpoints_warnings(new: v1.Endpoints, _old: v1.Endpoints | None) -> list[str]:
    if new.metadata.labels.get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
        return []
    warnings: list[str] = []
    for index, subset in enumerate(new.subsets):
        for name, addresses in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses)):
            for number, address in enumerate(addresses):
                place = Path("subsets").index(index).child(name).index(number).child("ip")
                warnings += ip_warnings(place, address.ip)
    return warnings


STRATEGIES: dict[str, Strategy[Any]] = {
    "configmaps": Strategy(
        validate=config.validate_config_map,
        validate_update=config.validate_config_map_update,
        likeness=Likeness(lambda _names: _CONFIG_MAP_FREE),
        name_errors=_subdomain,
    ),
    "secrets": Strategy(
        default=defaults.default_secret,
        validate=config.validate_secret,
        prepare_for_update=_keep_secret_type,
        validate_update=config.validate_secret_update,
        warnings=_secret_warnings,
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
        likeness=Likeness(lambda _names: _EVENT_FREE),
        allow_create_on_update=True,
        selectable_fields=EVENT_FIELDS,
    ),
    "pods": POD,
    "services": SERVICE,
    "endpoints": Strategy(
        default=defaults.default_endpoints,
        validate=endpoints.validate_endpoints,
        validate_update=endpoints.validate_endpoints_update,
        warnings=_endpoints_warnings,
        name_errors=_subdomain,
        allow_create_on_update=True,
    ),
    "nodes": Strategy(
        default=defaults.default_node,
        prepare_for_create=_create_node,
        validate=node.validate_node,
        prepare_for_update=_update_node,
        validate_update=node.validate_node_update,
        warnings=_node_warnings,
        name_errors=_subdomain,
        selectable_fields={"spec.unschedulable": lambda item: "true" if item.spec.unschedulable else "false"},
        subresources={
            "status": Strategy(
                default=defaults.default_node,
                prepare_for_update=_update_node_status,
                validate_update=node.validate_node_status_update,
            )
        },
    ),
    "limitranges": Strategy(
        default=defaults.default_limit_range,
        prepare_for_create=_name_limit_range,
        validate=quota.validate_limit_range,
        validate_update=quota.validate_limit_range_update,
        name_errors=_subdomain,
        allow_create_on_update=True,
    ),
    "resourcequotas": Strategy(
        default=defaults.default_quota,
        prepare_for_create=_reset_status,
        validate=quota.validate_resource_quota,
        prepare_for_update=_keep_status,
        validate_update=quota.validate_resource_quota_update,
        warnings=_quota_warnings,
        name_errors=_subdomain,
        subresources={
            "status": Strategy(
                default=defaults.default_quota,
                prepare_for_update=_keep_spec,
                validate_update=quota.validate_resource_quota_status_update,
            )
        },
    ),
    "persistentvolumes": Strategy(
        default=defaults.default_volume,
        prepare_for_create=_create_volume,
        validate=persistentvolume.validate_volume,
        prepare_for_update=_keep_status,
        validate_update=persistentvolume.validate_volume_update,
        warnings=volume_warnings,
        name_errors=_subdomain,
        selectable_fields={"name": lambda item: item.metadata.name},
        subresources={
            "status": Strategy(
                default=defaults.default_volume,
                prepare_for_update=_update_volume_status,
                touch=_touch_volume_status,
                validate_update=persistentvolume.validate_volume_status_update,
            )
        },
    ),
    "persistentvolumeclaims": Strategy(
        default=defaults.default_claim,
        prepare_for_create=_create_claim,
        validate=claims.validate_claim,
        prepare_for_update=_update_claim,
        validate_update=claimupdate.validate_claim_update,
        warnings=claim_warnings,
        name_errors=_subdomain,
        selectable_fields={"name": lambda item: item.metadata.name},
        subresources={
            "status": Strategy(
                default=defaults.default_claim,
                prepare_for_update=_keep_spec,
                validate_update=claimupdate.validate_claim_status_update,
            )
        },
    ),
    "podtemplates": POD_TEMPLATE,
    "replicationcontrollers": REPLICATION_CONTROLLER,
}
