"""Priority: the number behind a pod's priority class, and one default class at most.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.scheduling import v1 as scheduling
from haven.api.scheduling import v1alpha2
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["Priority"]

_NO_CLASS = scheduling.PriorityClass(value=0, preemption_policy="PreemptLowerPriority")


class Priority:
    """Sets the priority of pods."""

    name = "Priority"
    resources = frozenset({GroupResource("", "pods"), GroupResource("scheduling.k8s.io", "priorityclasses")})
    is_steady = True

    def __init__(self, objects: Objects, *, of_groups: bool = False) -> None:
        """`of_groups`: whether groups of Pods have priorities, too (feature WorkloadAwarePreemption)."""
        if of_groups:
            self.resources |= {GroupResource("scheduling.k8s.io", "podgroups")}
        self._objects = objects
        self._classes = scheme.resource_of(scheduling.PriorityClass)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.resource.plural == "podgroups":
            self._admit_group(request)
        if request.resource.plural != "pods" or request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        if request.operation == UPDATE:
            old: core.PodSpec = request.old.spec
            if spec.priority is None:
                spec.priority = old.priority
            if spec.preemption_policy is None:
                spec.preemption_policy = old.preemption_policy
            return
        chosen = self._choose(request, spec.priority_class_name)
        spec.priority_class_name = chosen.metadata.name
        if spec.priority not in (None, chosen.value):
            raise forbidden(
                request,
                f"the integer value of priority ({spec.priority}) must not be provided in pod spec; priority admission"
                f" controller computed {chosen.value} from the given PriorityClass name",
            )
        spec.priority = chosen.value
        policy = chosen.preemption_policy
        if policy is not None:
            if spec.preemption_policy not in (None, policy):
                raise forbidden(
                    request,
                    f"the string value of PreemptionPolicy ({spec.preemption_policy}) must not be provided in pod spec;"
                    f" priority admission controller computed {policy} from the given PriorityClass name",
                )
            spec.preemption_policy = policy

    def _admit_group(self, request: AdmissionRequest) -> None:
        if request.operation != CREATE or request.subresource:
            return
        spec: v1alpha2.PodGroupSpec = request.object.spec
        chosen = self._choose(request, spec.priority_class_name)
        if spec.priority not in (None, chosen.value):
            raise forbidden(
                request,
                f"priority set in the pod group ({spec.priority}) must match the priority computed ({chosen.value})"
                " based on the priority class set in the spec",
            )
        spec.priority, spec.priority_class_name = chosen.value, chosen.metadata.name

    async def validate(self, request: AdmissionRequest) -> None:
        if request.resource.plural != "priorityclasses" or not request.object.global_default:
            return
        default = self._default()
        if default is None:
            return
        name = default.metadata.name
        if request.operation == CREATE or name != request.object.metadata.name:
            text = f"PriorityClass {name} is already marked as default. Only one default can exist"
            raise forbidden(request, text)

    def _choose(self, request: AdmissionRequest, name: str) -> scheduling.PriorityClass:
        if not name:
            return self._default() or _NO_CLASS
        found = self._objects.get(self._classes, "", name)
        if found is None:
            raise forbidden(request, f"no PriorityClass with name {name} was found")
        return found

    def _default(self) -> scheduling.PriorityClass | None:
        """Return the default class; the least important one, should there be several."""
        defaults = [item for item in self._objects.list(self._classes) if item.global_default]
        return min(defaults, key=lambda item: (item.value, item.metadata.name)) if defaults else None
