"""Small plugins of pods: images are always pulled, topology comes from the node, resizes fit, anti-affinity is local.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.core.podresources import pod_requests
from haven.apimachinery import fielderrors, meta
from haven.apimachinery.apierrors import Forbidden, GroupResource
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.goformat import quote
from haven.apimachinery.quantity import Quantity
from haven.apiserver import podreferences
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["AlwaysPullImages", "LimitPodHardAntiAffinityTopology", "PodResizeValidator", "PodTopologyLabels"]

TOPOLOGY_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
HOSTNAME = "kubernetes.io/hostname"
_PODS = frozenset({GroupResource("", "pods")})


class AlwaysPullImages:
    """Makes nodes ask the registry for every image, so that nobody uses an image that only others may pull."""

    name = "AlwaysPullImages"
    resources = _PODS
    is_steady = True

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if _keeps_images(request):
            return
        spec: core.PodSpec = request.object.spec
        for container in podreferences.containers(spec):
            container.image_pull_policy = "Always"
        for volume in spec.volumes:
            if volume.image is not None:
                volume.image.pull_policy = "Always"

    async def validate(self, request: AdmissionRequest) -> None:
        if _keeps_images(request):
            return
        spec: core.PodSpec = request.object.spec
        kinds: tuple[tuple[str, Sequence[core.Container | core.EphemeralContainer]], ...] = (
            ("initContainers", spec.init_containers),
            ("containers", spec.containers or []),
            ("ephemeralContainers", spec.ephemeral_containers),
        )
        for kind, containers in kinds:
            for index, container in enumerate(containers):
                if container.image_pull_policy != "Always":
                    path = Path("spec", kind).index(index).child("imagePullPolicy")
                    error = fielderrors.not_supported(path, container.image_pull_policy, ["Always"])
                    raise forbidden(request, str(error))


def _keeps_images(request: AdmissionRequest) -> bool:
    if request.subresource:
        return True
    if request.operation != UPDATE:
        return False
    old = {container.image for container in podreferences.containers(request.old.spec)}
    return all(container.image in old for container in podreferences.containers(request.object.spec))


class PodTopologyLabels:
    """Copies zone and region of the node to pods, when they are bound or born bound."""

    name = "PodTopologyLabels"
    resources = _PODS
    is_steady = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._nodes = scheme.resource_of(core.Node)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource == "binding":
            target = request.object.target
            name = target.name if target.kind in ("Node", "") else ""
        elif not request.subresource:
            name = request.object.spec.node_name
        else:
            return
        node = self._objects.get(self._nodes, "", name) if name else None
        if node is None:
            return
        labels = {key: node.metadata.labels[key] for key in TOPOLOGY_LABELS if key in node.metadata.labels}
        if labels:
            request.object.metadata.labels = request.object.metadata.labels | labels


class PodResizeValidator:
    """Refuses a resize that the pod's node can never satisfy."""

    name = "PodResizeValidator"
    resources = _PODS
    is_steady = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._nodes = scheme.resource_of(core.Node)

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource != "resize":
            return
        pod: core.Pod = request.object
        name = pod.spec.node_name
        if not name or request.old.metadata.generation == pod.metadata.generation:
            return
        node = self._objects.get(self._nodes, "", name)
        if node is None:
            raise forbidden(request, f"node {quote(name)} not found")
        system = node.metadata.labels.get("kubernetes.io/os", "linux")
        if system != "linux":
            text = f"pod resize is only supported on linux nodes, node {quote(name)} is {quote(system)}"
            raise _refusal(request, text, "UnsupportedPlatform")
        requests, allocatable = pod_requests(pod), node.status.allocatable
        zero = Quantity.ZERO
        cpu, cpu_max = requests.get("cpu", zero), allocatable.get("cpu", zero)
        memory, memory_max = requests.get("memory", zero), allocatable.get("memory", zero)
        wrong = []
        if cpu > cpu_max:
            wrong.append(f"cpu, requested: {cpu.milli_value}, allocatable: {cpu_max.milli_value}")
        if memory > memory_max:
            wrong.append(f"memory, requested: {memory.value}, allocatable: {memory_max.value}")
        if wrong:
            text = f"node didn't have enough allocatable resources: {'; '.join(wrong)}"
            raise _refusal(request, text, "NodeCapacity")


def _refusal(request: AdmissionRequest, text: str, cause: str) -> Forbidden:
    error = forbidden(request, text)
    assert error.details is not None
    error.details.causes = [meta.StatusCause(reason=cause)]
    return error


class LimitPodHardAntiAffinityTopology:
    """Keeps pods from claiming more than a node for themselves."""

    name = "LimitPodHardAntiAffinityTopology"
    resources = _PODS
    is_steady = True

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        affinity = request.object.spec.affinity if not request.subresource else None
        if affinity is None or affinity.pod_anti_affinity is None:
            return
        for term in affinity.pod_anti_affinity.required_during_scheduling_ignored_during_execution:
            if term.topology_key != HOSTNAME:
                raise forbidden(
                    request,
                    f"affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {term.topology_key} but only"
                    f" key {HOSTNAME} is allowed",
                )
