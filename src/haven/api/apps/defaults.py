"""What the API server fills into workloads.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/ and the behaviour of pkg/apis/apps/v1.
"""

from __future__ import annotations

from haven.api.apps import v1
from haven.api.apps.validation import ROLLBACK, TEMPLATE_GENERATION
from haven.api.core.pod_defaults import default_claim_spec, default_pod_template
from haven.api.strategy import Unreadable
from haven.apimachinery.gonumbers import NotANumber, parse_int

__all__ = ["default_daemon_set", "default_deployment", "default_replica_set", "default_stateful_set"]

_HISTORY_LIMIT = 10
_PROGRESS_SECONDS = 600


def default_deployment(deployment: v1.Deployment) -> None:
    """Fill in a Deployment; raise Unreadable. What an annotation says of a rollback is a number, or is not said."""
    annotations = deployment.metadata.annotations
    if ROLLBACK in annotations:
        text = annotations[ROLLBACK]
        try:
            revision = str(parse_int(text)) if text else None
        except NotANumber as error:
            because = f"failed to parse annotation[{ROLLBACK}]={text} as int64: {error}"
            raise Unreadable("Deployment", "v1", because) from None
        rest = {name: value for name, value in annotations.items() if name != ROLLBACK}
        deployment.metadata.annotations = rest if revision is None else rest | {ROLLBACK: revision}
    spec = deployment.spec
    if spec.replicas is None:
        spec.replicas = 1
    strategy = spec.strategy
    if not strategy.type:
        strategy.type = "RollingUpdate"
    if strategy.type == "RollingUpdate":
        if strategy.rolling_update is None:
            strategy.rolling_update = v1.RollingUpdateDeployment()
        if strategy.rolling_update.max_unavailable is None:
            strategy.rolling_update.max_unavailable = "25%"
        if strategy.rolling_update.max_surge is None:
            strategy.rolling_update.max_surge = "25%"
    if spec.revision_history_limit is None:
        spec.revision_history_limit = _HISTORY_LIMIT
    if spec.progress_deadline_seconds is None:
        spec.progress_deadline_seconds = _PROGRESS_SECONDS
    default_pod_template(spec.template)


def default_replica_set(replica_set: v1.ReplicaSet) -> None:
    """Fill in a ReplicaSet."""
    if replica_set.spec.replicas is None:
        replica_set.spec.replicas = 1
    default_pod_template(replica_set.spec.template)


def default_daemon_set(daemon_set: v1.DaemonSet) -> None:
    """Fill in a DaemonSet; raise Unreadable."""
    try:
        parse_int(daemon_set.metadata.annotations.get(TEMPLATE_GENERATION, "0"))
    except NotANumber as error:
        raise Unreadable("DaemonSet", "v1", str(error)) from None
    spec = daemon_set.spec
    strategy = spec.update_strategy
    if not strategy.type:
        strategy.type = "RollingUpdate"
    if strategy.type == "RollingUpdate":
        if strategy.rolling_update is None:
            strategy.rolling_update = v1.RollingUpdateDaemonSet()
        if strategy.rolling_update.max_unavailable is None:
            strategy.rolling_update.max_unavailable = 1
        if strategy.rolling_update.max_surge is None:
            strategy.rolling_update.max_surge = 0
    if spec.revision_history_limit is None:
        spec.revision_history_limit = _HISTORY_LIMIT
    default_pod_template(spec.template)


def default_stateful_set(stateful_set: v1.StatefulSet) -> None:
    """Fill in a StatefulSet."""
    spec = stateful_set.spec
    if not spec.pod_management_policy:
        spec.pod_management_policy = "OrderedReady"
    strategy = spec.update_strategy
    if not strategy.type:
        strategy.type = "RollingUpdate"
        if strategy.rolling_update is None:
            strategy.rolling_update = v1.RollingUpdateStatefulSetStrategy()
    rolling = strategy.rolling_update
    if strategy.type == "RollingUpdate" and rolling is not None and rolling.partition is None:
        rolling.partition = 0
    policy = spec.persistent_volume_claim_retention_policy
    if policy is None:
        policy = v1.StatefulSetPersistentVolumeClaimRetentionPolicy()
        spec.persistent_volume_claim_retention_policy = policy
    policy.when_deleted = policy.when_deleted or "Retain"
    policy.when_scaled = policy.when_scaled or "Retain"
    if spec.replicas is None:
        spec.replicas = 1
    if spec.revision_history_limit is None:
        spec.revision_history_limit = _HISTORY_LIMIT
    default_pod_template(spec.template)
    for claim in spec.volume_claim_templates:
        claim.kind, claim.api_version = "PersistentVolumeClaim", "v1"
        claim.status.phase = claim.status.phase or "Pending"
        default_claim_spec(claim.spec)
