"""Fields of features that may be off: dropped from what clients write, unless the object had them before.

One table for all kinds. A rule is about one gate (or several, all of which must be on) and the fields that it brings.
If the stored object uses any of a rule's fields, all of them may stay: an object outlives the gate being turned off.
Source: https://kubernetes.io/docs/reference/using-api/deprecation-policy/ and upstream's DropDisabledFields functions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from haven.api.strategy import Strategy
from haven.apimachinery.apierrors import GroupResource

__all__ = ["DROPPED_BY_DEFAULT", "FIELD_GATES", "Rule", "gated", "rules_of"]

_CONTAINERS = ("containers", "init_containers", "ephemeral_containers")
_STATUSES = ("container_statuses", "init_container_statuses", "ephemeral_container_statuses")
_TEMPLATE = "spec.template.spec."
_POD_SPECS = {
    ("", "pods"): "spec.",
    ("", "podtemplates"): "template.spec.",
    ("", "replicationcontrollers"): _TEMPLATE,
    ("apps", "daemonsets"): _TEMPLATE,
    ("apps", "deployments"): _TEMPLATE,
    ("apps", "replicasets"): _TEMPLATE,
    ("apps", "statefulsets"): _TEMPLATE,
    ("batch", "cronjobs"): "spec.job_template.spec.template.spec.",
    ("batch", "jobs"): _TEMPLATE,
}
"""Where a PodSpec is in each kind that has one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Fields, as paths of attributes; a list or map on the way stands for each of its items.

    `only_with` names a field without which nothing is dropped. `prunes` takes away what holds the field, too, when
    nothing else is left in it. `keeps` is a value that may stay. `default` is what the field is without a word, when
    the feature is on; None for nothing.
    """

    gates: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    only_with: tuple[str, ...] = ()
    prunes: bool = False
    keeps: Any = None
    default: Any = None

    def drop(self, new: Any, old: Any | None) -> None:
        """Drop the fields from a new object, unless the old one uses some of them."""
        if self.only_with and not _is_used(new, self.only_with):
            return
        if old is not None:
            if not self.prunes and not any(_is_set(new, path) for path in self.paths):
                return  # As it nearly always is.
            if any(_is_used(old, path, self.keeps) for path in self.paths):
                return
        for path in self.paths:
            if self.prunes:
                _prune(new, path)
                continue
            for owner in _owners(new, path[:-1]):
                _clear(owner, path[-1], self.keeps)

    def fill(self, new: Any) -> None:
        """Set the fields that are not set to their default."""
        for path in self.paths:
            for owner in _owners(new, path[:-1]):
                if getattr(owner, path[-1]) is None:
                    setattr(owner, path[-1], self.default)


def _owners(obj: Any, path: Sequence[str]) -> Sequence[Any]:
    """Return what is at the end of a path. This runs for every Pod that is made: level by level, without recursion."""
    level: list[Any] = [obj]
    for name in path:
        below: list[Any] = []
        for one in level:
            value = getattr(one, name)
            if not value:  # Nothing there: None, or an empty list or map. A struct is always true.
                continue
            if isinstance(value, list):
                below += value
            elif isinstance(value, dict):
                below += value.values()
            else:
                below.append(value)
        if not below:
            return below
        level = below
    return level


def _is_used(obj: Any, path: Sequence[str], keeps: Any = None) -> bool:
    return any(
        (value := getattr(owner, path[-1])) is not None and value not in ("", [], {}) and (not keeps or value != keeps)
        for owner in _owners(obj, path[:-1])
    )


def _is_set(obj: Any, path: Sequence[str]) -> bool:
    """Tell whether there is anything to drop."""
    name = path[-1]
    for owner in _owners(obj, path[:-1]):
        value = getattr(owner, name)
        if value is not None and value != [] and value != {}:
            return True
    return False


def _clear(owner: Any, name: str, keeps: Any) -> None:
    value = getattr(owner, name)
    if value is None or (keeps is not None and value == keeps):
        return
    kind: Any = type(owner)
    setattr(owner, name, type(value)() if isinstance(value, list | dict) else _unset(kind, name))


@cache
def _unset(kind: Any, name: str) -> Any:
    return getattr(kind(), name)


def _prune(obj: Any, path: Sequence[str]) -> None:
    """Drop a field, and with it what held it where nothing else was in there."""
    for holder in _owners(obj, path[:-2]):
        owner = getattr(holder, path[-2])
        kind: Any = type(owner)
        if owner is not None and getattr(owner, path[-1]) != _unset(kind, path[-1]):
            _clear(owner, path[-1], None)
            if owner == kind():
                setattr(holder, path[-2], None)


def _rule(gates: str, *paths: str, only_with: str = "", **more: Any) -> Rule:
    found = tuple(tuple(one.split(".")) for path in paths for one in _expanded(path))
    return Rule(tuple(gates.split()), found, tuple(only_with.split(".")) if only_with else (), **more)


def _expanded(path: str) -> list[str]:
    for word, names in (("{containers}", _CONTAINERS), ("{statuses}", _STATUSES)):
        if word in path:
            return [path.replace(word, name) for name in names]
    return [path]


_OF_POD_SPECS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("ContainerStopSignals", ("{containers}.lifecycle.stop_signal",), {"prunes": True}),
    ("GenericWorkload", ("scheduling_group",), {}),
    ("ClusterTrustBundleProjection", ("volumes.projected.sources.cluster_trust_bundle",), {}),
    ("PodCertificateRequest", ("volumes.projected.sources.pod_certificate",), {}),
    ("PodLevelResources", ("resources",), {}),
    ("MatchLabelKeysInPodTopologySpread", ("topology_spread_constraints.match_label_keys",), {}),
    ("HostnameOverride", ("hostname_override",), {}),
    ("EnvFiles", ("{containers}.env.value_from.file_key_ref",), {}),
    (
        "ContainerRestartRules",
        ("containers.restart_policy", "ephemeral_containers.restart_policy", "{containers}.restart_policy_rules"),
        {},
    ),
    ("ContainerRestartRules", ("init_containers.restart_policy",), {"keeps": "Always"}),
)
_CLAIM_SPEC = (
    ("DRAPrioritizedList", ("devices.requests.first_available",)),
    ("DRADeviceTaints", ("devices.requests.exactly.tolerations", "devices.requests.first_available.tolerations")),
    (
        "DRAConsumableCapacity",
        (
            "devices.constraints.distinct_attribute",
            "devices.requests.exactly.capacity",
            "devices.requests.first_available.capacity",
        ),
    ),
)
_GROUP_FIELDS = (
    ("TopologyAwareWorkloadScheduling", "scheduling_constraints"),
    ("DRAWorkloadResourceClaims", "resource_claims"),
    ("WorkloadAwarePreemption", "disruption_mode"),
    ("WorkloadAwarePreemption", "priority_class_name"),
    ("WorkloadAwarePreemption", "priority"),
)
_ALLOCATED = "status.allocation.devices.results."
_DEVICES = "spec.devices."
_RULES: dict[tuple[str, str], tuple[Rule, ...]] = {
    ("", "pods"): (
        _rule("InPlacePodLevelResourcesVerticalScaling", "status.resources", "status.allocated_resources"),
        _rule("DRAExtendedResource", "status.extended_resource_claim_status"),
        _rule("ResourceHealthStatus", "status.{statuses}.allocated_resources_status"),
        _rule("ResourceHealthStatusMessage", "status.{statuses}.allocated_resources_status.resources.message"),
        _rule("ImageVolumeWithDigest", "status.{statuses}.volume_mounts.volume_status"),
        _rule("DRANodeAllocatableResources", "status.node_allocatable_resource_claim_statuses"),
    ),
    ("", "nodes"): (_rule("NodeDeclaredFeatures", "status.declared_features"),),
    ("", "persistentvolumeclaims"): (
        _rule("CrossNamespaceVolumeDataSource", "spec.data_source_ref", only_with="spec.data_source_ref.namespace"),
    ),
    ("apps", "deployments"): (_rule("DeploymentReplicaSetTerminatingReplicas", "status.terminating_replicas"),),
    ("apps", "replicasets"): (_rule("DeploymentReplicaSetTerminatingReplicas", "status.terminating_replicas"),),
    ("apps", "statefulsets"): (
        _rule("MaxUnavailableStatefulSet", "spec.update_strategy.rolling_update.max_unavailable", default=1),
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        _rule("HPAConfigurableTolerance", "spec.behavior.scale_down.tolerance", "spec.behavior.scale_up.tolerance"),
    ),
    ("coordination.k8s.io", "leases"): (
        _rule("CoordinatedLeaderElection", "spec.strategy"),
        _rule("CoordinatedLeaderElection", "spec.preferred_holder"),
    ),
    ("storage.k8s.io", "csidrivers"): (
        _rule("VolumeLimitScaling", "spec.prevent_pod_scheduling_if_missing", default=False),
    ),
    ("resource.k8s.io", "deviceclasses"): (_rule("DRAExtendedResource", "spec.extended_resource_name"),),
    ("resource.k8s.io", "resourceclaims"): (
        *(_rule(gate, *(f"spec.{path}" for path in paths)) for gate, paths in _CLAIM_SPEC),
        _rule("DRAResourceClaimDeviceStatus", "status.devices"),
        _rule(
            "DRAConsumableCapacity",
            f"{_ALLOCATED}share_id", f"{_ALLOCATED}consumed_capacity", "status.devices.share_id",
        ),
        _rule(
            "DRADeviceBindingConditions",
            f"{_ALLOCATED}binding_conditions", f"{_ALLOCATED}binding_failure_conditions",
        ),
    ),
    ("resource.k8s.io", "resourceclaimtemplates"): tuple(
        _rule(gate, *(f"spec.spec.{path}" for path in paths)) for gate, paths in _CLAIM_SPEC
    ),
    ("resource.k8s.io", "resourceslices"): (
        _rule("DRADeviceTaints", f"{_DEVICES}taints"),
        _rule(
            "DRAPartitionableDevices",
            "spec.shared_counters", "spec.per_device_node_selection", f"{_DEVICES}consumes_counters",
            f"{_DEVICES}node_name", f"{_DEVICES}node_selector", f"{_DEVICES}all_nodes",
        ),
        _rule(
            "DRADeviceBindingConditions DRAResourceClaimDeviceStatus",
            f"{_DEVICES}binding_conditions", f"{_DEVICES}binding_failure_conditions", f"{_DEVICES}binds_to_node",
        ),
        _rule(
            "DRAConsumableCapacity",
            f"{_DEVICES}allow_multiple_allocations", f"{_DEVICES}capacity.request_policy",
        ),
        _rule("DRANodeAllocatableResources", f"{_DEVICES}node_allocatable_resource_mappings"),
        _rule(
            "DRAListTypeAttributes",
            f"{_DEVICES}attributes.bools", f"{_DEVICES}attributes.ints", f"{_DEVICES}attributes.strings",
            f"{_DEVICES}attributes.versions",
        ),
    ),
    ("scheduling.k8s.io", "podgroups"): (
        *(_rule(gate, f"spec.{name}") for gate, name in _GROUP_FIELDS),
        _rule("DRAWorkloadResourceClaims", "status.resource_claim_statuses"),
    ),
    ("scheduling.k8s.io", "workloads"): tuple(
        _rule(gate, f"spec.pod_group_templates.{name}") for gate, name in _GROUP_FIELDS
    ),
}  # fmt: skip


@cache
def rules_of(resource: GroupResource) -> tuple[Rule, ...]:
    """Return the rules of a kind's objects as they are stored."""
    prefix = _POD_SPECS.get(resource)
    in_pods = (_rule(gate, *(prefix + path for path in paths), **more) for gate, paths, more in _OF_POD_SPECS if prefix)
    return (*in_pods, *_RULES.get(resource, ()))


FIELD_GATES = frozenset(
    gate for kind in (*_RULES, *_POD_SPECS) for rule in rules_of(GroupResource(*kind)) for gate in rule.gates
)
"""The gates that rules are about."""
DROPPED_BY_DEFAULT = frozenset(
    {
        "ClusterTrustBundleProjection", "ContainerStopSignals", "CoordinatedLeaderElection",
        "CrossNamespaceVolumeDataSource", "DRAListTypeAttributes", "DRANodeAllocatableResources",
        "DRAWorkloadResourceClaims", "GenericWorkload", "ImageVolumeWithDigest", "MaxUnavailableStatefulSet",
        "PodCertificateRequest", "TopologyAwareWorkloadScheduling", "VolumeLimitScaling", "WorkloadAwarePreemption",
    }
)  # fmt: skip
"""Those of them that are off in v1.36 unless an operator says otherwise."""


def gated(strategy: Strategy[Any], resource: GroupResource, off: frozenset[str]) -> Strategy[Any]:
    """Return a kind's rules with fields of features dropped that are off, and defaults of those that are on."""
    rules = rules_of(resource)
    dropped = tuple(rule for rule in rules if not off.isdisjoint(rule.gates))
    filled = tuple(rule for rule in rules if off.isdisjoint(rule.gates) and rule.default is not None)
    if not dropped and not filled:
        return strategy
    return _wrapped(strategy, dropped, filled)


def _wrapped(strategy: Strategy[Any], dropped: tuple[Rule, ...], filled: tuple[Rule, ...]) -> Strategy[Any]:
    default, create, update = strategy.default, strategy.prepare_for_create, strategy.prepare_for_update

    def default_all(new: Any) -> None:
        default(new)
        for rule in filled:
            rule.fill(new)

    # The status of a new object is set anew anyway.
    of_new = tuple(rule for rule in dropped if any(path[0] != "status" for path in rule.paths))

    def prepare_for_create(new: Any) -> None:
        for rule in of_new:
            rule.drop(new, None)
        create(new)

    def prepare_for_update(new: Any, old: Any) -> None:
        for rule in dropped:
            rule.drop(new, old)
        update(new, old)

    # A status is changed alone: all else stays as it was.
    of_status = tuple(rule for rule in dropped if any(path[0] == "status" for path in rule.paths))
    subresources = {
        name: _wrapped(one, of_status if name == "status" else dropped, filled)
        for name, one in strategy.subresources.items()
    }
    return replace(
        strategy,
        default=default_all if filled else default,
        prepare_for_create=prepare_for_create if dropped else create,
        prepare_for_update=prepare_for_update if dropped else update,
        subresources=subresources,
    )
