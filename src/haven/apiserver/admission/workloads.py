"""Plugins of workload-aware scheduling: groups of Pods are protected, belong to a Workload that exists, and Jobs do not
outgrow their gang. They do something only with the feature gates GenericWorkload and WorkloadWithJob.

Source: https://kubernetes.io/docs/concepts/workloads/workload-api/
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.batch import v1 as batch
from haven.api.scheduling import v1alpha2 as scheduling
from haven.apimachinery import meta
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["PROTECTION", "JobValidation", "PodGroupProtection", "PodGroupWorkloadExists"]

PROTECTION = "scheduling.k8s.io/podgroup-protection"
_GROUPS = frozenset({GroupResource("scheduling.k8s.io", "podgroups")})


class PodGroupProtection:
    """Puts a finalizer on groups, which the controller takes off when no Pod refers to them any more."""

    name = "PodGroupProtection"
    resources = _GROUPS

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        metadata: meta.ObjectMeta = request.object.metadata
        if not request.subresource and PROTECTION not in metadata.finalizers:
            metadata.finalizers = [*metadata.finalizers, PROTECTION]


class PodGroupWorkloadExists:
    """Refuses groups that are made after a template which there is not."""

    name = "PodGroupWorkloadExists"
    resources = _GROUPS

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._workloads = scheme.resource_of(scheduling.Workload)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        group: scheduling.PodGroup = request.object
        template = group.spec.pod_group_template_ref
        reference = template.workload if template is not None else None
        if reference is None:
            return
        name = quote(reference.workload_name)
        workload = self._objects.get(self._workloads, request.namespace, reference.workload_name)
        if workload is None:
            raise forbidden(request, f"PodGroup rejected: Workload {name} not found")
        if workload.metadata.deletion_timestamp is not None:
            raise forbidden(request, f"PodGroup rejected: Workload {name} is being deleted")
        wanted = reference.pod_group_template_name
        if not any(one.name == wanted for one in workload.spec.pod_group_templates or ()):
            text = f"PodGroup rejected: PodGroupTemplate {quote(wanted)} not found in Workload {name}"
            raise forbidden(request, text)


class JobValidation:
    """Keeps the parallelism of Jobs whose Pods are scheduled as a gang: the gang's size follows from it."""

    name = "JobValidation"
    resources = frozenset({GroupResource("batch", "jobs")})

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._groups = scheme.resource_of(scheduling.PodGroup)

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        new: batch.Job = request.object
        old: batch.Job = request.old
        if request.subresource or new.spec.parallelism == old.spec.parallelism:
            return
        for group in self._groups_of(old):
            if group.spec.scheduling_policy.gang is not None:
                name = quote(group.metadata.name)
                text = f"cannot change parallelism for a Job referencing gang-scheduled PodGroup {name}"
                raise forbidden(request, text)

    def _groups_of(self, job: batch.Job) -> list[scheduling.PodGroup]:
        namespace = job.metadata.namespace
        named = job.spec.template.spec.scheduling_group
        if named is not None and named.pod_group_name is not None:
            found = self._objects.get(self._groups, namespace, named.pod_group_name)
            return [found] if found is not None else []
        return [
            group
            for group in self._objects.list(self._groups, namespace)
            if any(one.controller and one.uid == job.metadata.uid for one in group.metadata.owner_references)
        ]
