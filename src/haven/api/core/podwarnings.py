"""What the API server warns of in Pods and pod templates that it accepts.

Source: the behaviour of pkg/api/pod (warnings) and pkg/api/node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from haven.api.core import v1
from haven.api.core.validation.containers import Container, containers_of
from haven.api.core.validation.security import (
    APP_ARMOR_ANNOTATION,
    SECCOMP_CONTAINER_ANNOTATION,
    SECCOMP_POD_ANNOTATION,
    app_armor_errors,
    app_armor_field,
)
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.goformat import quote
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.addresses import ip_warnings
from haven.apimachinery.validation.names import dns1123_label_errors, label_value_errors

__all__ = [
    "claim_spec_warnings",
    "deprecated_node_label",
    "name_warnings",
    "node_selector_term_warnings",
    "pod_warnings",
    "template_warnings",
]

_DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_DEPRECATED_ANNOTATIONS = (
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        'non-functional in v1.16+; use the "priorityClassName" field instead',
    ),
    ("security.alpha.kubernetes.io/sysctls", 'non-functional in v1.11+; use the "sysctls" field instead'),
    ("security.alpha.kubernetes.io/unsafe-sysctls", 'non-functional in v1.11+; use the "sysctls" field instead'),
)
_DEPRECATED_VOLUMES = (
    ("photon_persistent_disk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("git_repo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scale_io", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("ephemeral", "", ""),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
)
_MATCHES_NOTHING = "a null labelSelector results in matching no pod"


def deprecated_node_label(key: str) -> str:
    """Return what to say of an old node label; "" for others."""
    return _DEPRECATED_LABELS.get(key, "")


def name_warnings(name: str, what: str = "Pod names and hostnames") -> list[str]:
    """Warn of a name that is no DNS label where host names are made of it."""
    found = dns1123_label_errors(name)
    if not found:
        return []
    use = f"this is used in {what}, which can result in surprising behavior; a DNS label is recommended"
    return [f"metadata.name: {use}: [{' '.join(found)}]"]


def pod_warnings(pod: v1.Pod) -> list[str]:
    """Return the warnings about a new Pod."""
    return name_warnings(pod.metadata.name, "the Pod's hostname") + _warnings(pod.metadata, pod.spec, None)


def template_warnings(template: v1.PodTemplateSpec | None, path: Path) -> list[str]:
    """Return the warnings about a template."""
    return [] if template is None else _warnings(template.metadata, template.spec, path)


def node_selector_term_warnings(term: v1.NodeSelectorTerm, path: Path, *, check_values: bool) -> list[str]:
    """Warn of old labels, and of values that no label can have."""
    warnings = []
    for index, requirement in enumerate(term.match_expressions):
        place = path.child("matchExpressions").index(index)
        if said := deprecated_node_label(requirement.key):
            warnings.append(f"{place.child('key')}: {requirement.key} is {said}")
        for number, value in enumerate(requirement.values if check_values else ()):
            for text in label_value_errors(value):
                where = place.child("values").index(number)
                warnings.append(f"{where}: {value} is invalid, {text}")
    return warnings


def claim_spec_warnings(spec: v1.PersistentVolumeClaimSpec, path: Path) -> list[str]:
    """Warn of fractions of a byte."""
    resources = spec.resources
    requests = _fraction(resources.requests, "storage", path.child("resources").child("requests"))
    return requests + _fraction(resources.limits, "storage", path.child("resources").child("limits"))


def _warnings(metadata: meta.ObjectMeta, spec: v1.PodSpec, template: Path | None) -> list[str]:
    path = template.child("spec") if template is not None else Path("spec")
    annotations = template.child("metadata", "annotations") if template is not None else Path("metadata", "annotations")
    warnings: list[str] = []
    for key in sorted(spec.node_selector):
        if said := deprecated_node_label(key):
            warnings.append(f"{path.child('nodeSelector').key(key)}: {said}")
    warnings += _node_affinity(spec.affinity, path)
    for index, constraint in enumerate(spec.topology_spread_constraints):
        place = path.child("topologySpreadConstraints").index(index)
        if said := deprecated_node_label(constraint.topology_key):
            warnings.append(f"{place.child('topologyKey')}: {constraint.topology_key} is {said}")
        if constraint.label_selector is None:
            warnings.append(f"{place.child('labelSelector')}: {_MATCHES_NOTHING}")
    for key, said in _DEPRECATED_ANNOTATIONS if metadata.annotations else ():
        if key in metadata.annotations:
            warnings.append(f"{annotations.key(key)}: {said}")
    for index, volume in enumerate(spec.volumes):
        warnings += _volume(volume, path.child("volumes").index(index))
    warnings += _overlapping_paths(spec.volumes)
    warnings += _duplicates(spec, path)
    for name in ("memory", "ephemeral-storage") if spec.overhead else ():
        warnings += _fraction(spec.overhead, name, path.child("overhead"))
    context = spec.security_context
    if (context is None or context.seccomp_profile is None) and SECCOMP_POD_ANNOTATION in metadata.annotations:
        said = 'non-functional in v1.27+; use the "seccompProfile" field instead'
        warnings.append(f"{annotations.key(SECCOMP_POD_ANNOTATION)}: {said}")
    everything = list(containers_of(spec, path))
    for container, place in everything:
        warnings += _container(container, place, metadata, annotations, spec, is_template=template is not None)
    if any(container.ports for container, _ in everything):
        warnings += _ports(everything)
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace < 0:
        said = "must be >= 0; negative values are invalid and will be treated as 1"
        warnings.append(f"{path.child('terminationGracePeriodSeconds')}: {said}")
    warnings += _pod_affinity(spec.affinity, path)
    if spec.dns_config is not None:
        for index, address in enumerate(spec.dns_config.nameservers):
            warnings += ip_warnings(path.child("dnsConfig", "nameservers").index(index), address)
    for index, alias in enumerate(spec.host_aliases):
        warnings += ip_warnings(path.child("hostAliases").index(index).child("ip"), alias.ip)
    return warnings


def _node_affinity(affinity: v1.Affinity | None, path: Path) -> list[str]:
    node = affinity.node_affinity if affinity is not None else None
    if node is None:
        return []
    warnings: list[str] = []
    place = path.child("affinity", "nodeAffinity")
    required = node.required_during_scheduling_ignored_during_execution
    if required is not None:
        terms = place.child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
        for index, term in enumerate(required.node_selector_terms or ()):
            warnings += node_selector_term_warnings(term, terms.index(index), check_values=False)
    preferred = place.child("preferredDuringSchedulingIgnoredDuringExecution")
    for index, weighted in enumerate(node.preferred_during_scheduling_ignored_during_execution):
        where = preferred.index(index).child("preference")
        warnings += node_selector_term_warnings(weighted.preference, where, check_values=True)
    return warnings


def _pod_affinity(affinity: v1.Affinity | None, path: Path) -> list[str]:
    warnings: list[str] = []
    if affinity is None:
        return warnings
    for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pods is None:
            continue
        place = path.child("affinity", name, "requiredDuringSchedulingIgnoredDuringExecution")
        for index, term in enumerate(pods.required_during_scheduling_ignored_during_execution):
            if term.label_selector is None:
                warnings.append(f"{place.index(index).child('labelSelector')}: {_MATCHES_NOTHING}")
        place = path.child("affinity", name, "preferredDuringSchedulingIgnoredDuringExecution")
        for index, weighted in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            if weighted.pod_affinity_term.label_selector is None:
                where = place.index(index).child("podAffinityTerm", "labelSelector")
                warnings.append(f"{where}: {_MATCHES_NOTHING}")
    return warnings


def _volume(volume: v1.Volume, path: Path) -> list[str]:
    warnings: list[str] = []
    for attribute, name, said in _DEPRECATED_VOLUMES:
        source = getattr(volume, attribute)
        if source is None:
            continue
        if said:
            warnings.append(f"{path.child(name)}: {said}")
        elif volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None:
            place = path.child("ephemeral").child("volumeClaimTemplate").child("spec")
            warnings += claim_spec_warnings(volume.ephemeral.volume_claim_template.spec, place)
    return warnings


def _duplicates(spec: v1.PodSpec, path: Path) -> list[str]:
    warnings = []
    seen: set[str] = set()
    for index, alias in enumerate(spec.host_aliases):
        if alias.ip in seen:
            place = path.child("hostAliases").index(index).child("ip")
            warnings.append(f"{place}: duplicate ip {quote(alias.ip)}")
        seen.add(alias.ip)
    names: set[str] = set()
    for index, reference in enumerate(spec.image_pull_secrets):
        if reference.name in names:
            place = path.child("imagePullSecrets").index(index).child("name")
            warnings.append(f"{place}: duplicate name {quote(reference.name)}")
        names.add(reference.name)
    for index, reference in enumerate(spec.image_pull_secrets):
        if not reference.name:
            place = path.child("imagePullSecrets").index(index).child("name")
            warnings.append(f'{place}: invalid empty name ""')
    return warnings


def _fraction(amounts: dict[str, Quantity], name: str, path: Path) -> list[str]:
    amount = amounts.get(name)
    if amount is None or amount.is_whole:
        return []
    return [f"{path.key(name)}: fractional byte value {quote(str(amount))} is invalid, must be an integer"]


def _container(
    container: Container,
    path: Path,
    metadata: meta.ObjectMeta,
    annotations: Path,
    spec: v1.PodSpec,
    *,
    is_template: bool,
) -> list[str]:
    warnings: list[str] = []
    context = container.security_context
    if metadata.annotations:
        key = SECCOMP_CONTAINER_ANNOTATION + container.name
        if (context is None or context.seccomp_profile is None) and key in metadata.annotations:
            said = 'non-functional in v1.27+; use the "seccompProfile" field instead'
            warnings.append(f"{annotations.key(key)}: {said}")
        key = APP_ARMOR_ANNOTATION + container.name
        if key in metadata.annotations and _app_armor_is_old(container, metadata.annotations[key], spec, is_template):
            said = 'deprecated since v1.30; use the "appArmorProfile" field instead'
            warnings.append(f"{annotations.key(key)}: {said}")
    resources = container.resources
    for name in ("memory", "ephemeral-storage"):
        if resources.limits:
            warnings += _fraction(resources.limits, name, path.child("resources", "limits"))
        if resources.requests:
            warnings += _fraction(resources.requests, name, path.child("resources", "requests"))
    seen: set[str] = set()
    for index, variable in enumerate(container.env):
        if variable.name in seen:
            reference = f"$({variable.name})"
            hides = variable.value_from is not None or variable.value == reference or reference not in variable.value
            if hides:
                said = f"hides previous definition of {quote(variable.name)}, which may be dropped when using apply"
                warnings.append(f"{path.child('env').index(index)}: {said}")
        seen.add(variable.name)
    return warnings


def _app_armor_is_old(container: Container, annotation: str, spec: v1.PodSpec, is_template: bool) -> bool:
    """Tell whether an annotation says what no field says; for Pods after their annotations became fields."""
    context = container.security_context
    of_pod = spec.security_context.app_armor_profile if spec.security_context is not None else None
    said = app_armor_field(annotation)
    own = context.app_armor_profile if context is not None else None
    if is_template:
        return own is None and (of_pod is None or of_pod != said)
    if said is None or app_armor_errors(said, Path("")):
        return own is None
    return own is not None and own == said and own != of_pod


def _ports(containers: Iterable[tuple[Container, Path]]) -> list[str]:
    warnings: list[str] = []
    everything = list(containers)
    taken: dict[tuple[int, str], list[tuple[Path, v1.ContainerPort]]] = {}
    for container, path in everything:
        for index, port in enumerate(container.ports):
            place = path.child("ports").index(index)
            if port.host_ip and port.host_port == 0:
                shown = (
                    f"{{Name:{port.name} HostPort:{port.host_port} ContainerPort:{port.container_port} "
                    f"Protocol:{port.protocol} HostIP:{port.host_ip}}}"
                )
                warnings.append(f"{place}: hostIP set without hostPort: {shown}")
            others = taken.setdefault((port.container_port, port.protocol), [])
            for where, other in others:
                if (port.host_ip, port.host_port) == (other.host_ip, other.host_port):
                    warnings.append(f"{place}: duplicate port definition with {where}")
                elif port.host_port == 0 or other.host_port == 0:
                    warnings.append(f"{place}: overlapping port definition with {where}")
                elif port.host_port == other.host_port and bool(port.host_ip) != bool(other.host_ip):
                    warnings.append(f"{place}: dangerously ambiguous port definition with {where}")
            others.append((place, port))
    names: dict[str, Path] = {}
    for container, path in everything:
        for index, port in enumerate(container.ports):
            if not port.name:
                continue
            place = path.child("ports").index(index)
            first = names.setdefault(port.name, place)
            if first is not place:
                said = f"services and probes that select ports by name will use {first}"
                warnings.append(f"{place}: duplicate port name {quote(port.name)} with {first}, {said}")
    return warnings


class _Target(NamedTuple):
    """A file that a volume makes, and what makes it."""

    path: str
    source: str

    def __str__(self) -> str:
        return f"{quote(self.path)} ({self.source})" if self.source else quote(self.path)


def _overlaps(known: Sequence[_Target], target: _Target) -> list[_Target]:
    if not target.path:
        return []
    return [
        item
        for item in known
        if item.path
        and (
            item == target
            or f"{item.path}/".startswith(f"{target.path}/")
            or f"{target.path}/".startswith(f"{item.path}/")
        )
    ]


def _overlapping_paths(volumes: Sequence[v1.Volume]) -> list[str]:
    warnings: list[str] = []
    for volume in volumes:
        sources: list[tuple[str, list[_Target]]] = []
        if volume.config_map is not None:
            targets = [_Target(item.path, "") for item in volume.config_map.items]
            sources.append((f"ConfigMap {quote(volume.config_map.name)}", targets))
        if volume.secret is not None:
            targets = [_Target(item.path, "") for item in volume.secret.items]
            sources.append((f"Secret {quote(volume.secret.secret_name)}", targets))
        if volume.downward_api is not None:
            sources.append(("DownwardAPI", [_Target(item.path, "") for item in volume.downward_api.items]))
        if volume.projected is not None:
            targets = []
            for projection in volume.projected.sources or ():
                if projection == v1.VolumeProjection():
                    warnings.append(f"volume {quote(volume.name)} (Projected) has no sources provided")
                targets += _projected_targets(projection)
            sources.append(("Projected", targets))
        for description, targets in sources:
            known: list[_Target] = []
            for target in targets:
                trimmed = target._replace(path=target.path.rstrip("/"))
                for other in _overlaps(known, trimmed):
                    said = f"overlapping paths: {trimmed} with {other}"
                    warnings.append(f"volume {quote(volume.name)} ({description}): {said}")
                known.append(trimmed)
    return warnings


def _projected_targets(source: v1.VolumeProjection) -> list[_Target]:
    if source.config_map is not None and source.config_map.items:
        name = f"ConfigMap {quote(source.config_map.name)}"
        return [_Target(item.path, name) for item in source.config_map.items]
    if source.secret is not None and source.secret.items:
        name = f"Secret {quote(source.secret.name)}"
        return [_Target(item.path, name) for item in source.secret.items]
    if source.downward_api is not None and source.downward_api.items:
        return [_Target(item.path, "DownwardAPI") for item in source.downward_api.items]
    if source.service_account_token is not None:
        return [_Target(source.service_account_token.path, "ServiceAccountToken")]
    if source.cluster_trust_bundle is not None:
        bundle = source.cluster_trust_bundle
        name = bundle.name if bundle.name is not None else bundle.signer_name or ""
        return [_Target(bundle.path, f"ClusterTrustBundle {quote(name)}")]
    if source.pod_certificate is not None:
        certificate = source.pod_certificate
        found = (
            (certificate.certificate_chain_path, "PodCertificate chain"),
            (certificate.key_path, "PodCertificate key"),
            (certificate.credential_bundle_path, "PodCertificate credential bundle"),
        )
        return [_Target(path, name) for path, name in found if path]
    return []
