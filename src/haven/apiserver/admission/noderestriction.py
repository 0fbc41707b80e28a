"""NodeRestriction: kubelets write only what belongs to their own node.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.x509.oid import NameOID

from haven.api import scheme
from haven.api.certificates.strategies import BadRequestPem, parse_request
from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import meta, serialization
from haven.apimachinery.apierrors import GroupResource, NotFound
from haven.apimachinery.goformat import aggregate, quote
from haven.apiserver import podreferences
from haven.apiserver.admission.interface import CREATE, DELETE, UPDATE, AdmissionRequest, Objects, forbidden
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide
from haven.apiserver.authorization.node import node_name_of

__all__ = ["NodeRestriction"]

RESTRICTED_LABELS = "node-restriction.kubernetes.io"
_OWN_LABELS = frozenset({
    "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type",
})  # fmt: skip
_OWN_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_SIGNERS = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")

_MIGRATED = {
    "gce_persistent_disk": "pd.csi.storage.gke.io",
    "aws_elastic_block_store": "ebs.csi.aws.com",
    "cinder": "cinder.csi.openstack.org",
    "azure_disk": "disk.csi.azure.com",
    "azure_file": "file.csi.azure.com",
    "vsphere_volume": "csi.vsphere.vmware.com",
    "portworx_volume": "pxd.portworx.com",
}
"""The drivers that serve volumes of kinds that were once built in."""


class NodeRestriction:
    """Judges what kubelets ask for, before others change it."""

    name = "NodeRestriction"
    resources = frozenset(
        {
            GroupResource("", "pods"), GroupResource("", "nodes"), GroupResource("", "persistentvolumeclaims"),
            GroupResource("", "serviceaccounts"), GroupResource("coordination.k8s.io", "leases"),
            GroupResource("storage.k8s.io", "csinodes"), GroupResource("resource.k8s.io", "resourceslices"),
            GroupResource("certificates.k8s.io", "certificatesigningrequests"),
        }
    )  # fmt: skip
    is_steady = True

    def __init__(self, objects: Objects, authorizer: Authorizer) -> None:
        self._objects = objects
        self._authorizer = authorizer
        self._pods = scheme.resource_of(core.Pod)
        self._nodes = scheme.resource_of(core.Node)
        self._claims = scheme.resource_of(core.PersistentVolumeClaim)
        self._volumes = scheme.resource_of(core.PersistentVolume)
        self._drivers = scheme.resource_of(storage.CSIDriver)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE)

    async def admit(self, request: AdmissionRequest) -> None:
        node = node_name_of(request.user)
        if node is None:
            return
        if not node:
            raise forbidden(request, f"could not determine node from user {quote(request.user.name)}")
        match request.resource.plural:
            case "pods":
                self._pod(node, request)
            case "nodes":
                _node(node, request)
            case "persistentvolumeclaims":
                _claim(node, request)
            case "serviceaccounts":
                await self._token(node, request)
            case "leases":
                _lease(node, request)
            case "csinodes":
                _named_as_node(node, request, "CSINode")
            case "resourceslices":
                _resource_slice(node, request)
            case "certificatesigningrequests":
                _signing_request(node, request)

    def _pod(self, node: str, request: AdmissionRequest) -> None:
        match request.subresource, request.operation:
            case "", "CREATE":
                self._create_pod(node, request)
            case "", "DELETE":
                if self._find_pod(request, request.name).spec.node_name != node:
                    text = f"node {quote(node)} can only delete pods with spec.nodeName set to itself"
                    raise forbidden(request, text)
            case "", operation:
                raise forbidden(
                    request,
                    f"unexpected operation {quote(operation)}, node {quote(node)} can only create and delete"
                    " mirror pods",
                )
            case "status", "UPDATE":
                _pod_status(node, request)
            case "eviction", "CREATE":
                name = request.name or request.object.metadata.name
                if not name:
                    raise forbidden(request, "could not determine pod from request data")
                if self._find_pod(request, name).spec.node_name != node:
                    raise forbidden(request, f"node {node} can only evict pods with spec.nodeName set to itself")
            case "status", operation:
                raise forbidden(request, f"unexpected operation {quote(operation)}")
            case "eviction", operation:
                raise forbidden(request, f"unexpected operation {operation}")
            case subresource, _:
                raise forbidden(
                    request,
                    f"unexpected pod subresource {quote(subresource)}, only 'status' and 'eviction' are allowed",
                )

    def _find_pod(self, request: AdmissionRequest, name: str) -> core.Pod:
        pod = self._objects.get(self._pods, request.namespace, name)
        if pod is None:
            raise NotFound.of(GroupResource("", "pod"), name)  # Singular: upstream asks its informer.
        return pod

    def _create_pod(self, node: str, request: AdmissionRequest) -> None:
        pod: core.Pod = request.object
        shown = quote(node)
        if podreferences.MIRROR_ANNOTATION not in pod.metadata.annotations:
            raise forbidden(
                request,
                f"pod does not have {quote(podreferences.MIRROR_ANNOTATION)} annotation, node {shown} can only create"
                " mirror pods",
            )
        can_only = f"node {shown} can only create pods with"
        if pod.spec.node_name != node:
            raise forbidden(request, f"{can_only} spec.nodeName set to itself")
        owners = pod.metadata.owner_references
        if len(owners) > 1:
            raise forbidden(request, f"{can_only} a single owner reference set to itself")
        owner = owners[0] if owners else None
        if owner is None or (owner.api_version, owner.kind, owner.name) != ("v1", "Node", node):
            raise forbidden(request, f"{can_only} an owner reference set to itself")
        if not owner.controller:
            raise forbidden(request, f"{can_only} a controller owner reference set to itself")
        if owner.block_owner_deletion:
            raise forbidden(request, f"node {shown} must not set blockOwnerDeletion on an owner reference")
        found = self._objects.get(self._nodes, "", node)
        if found is None:
            raise NotFound.of(GroupResource("", "node"), node)
        if owner.uid != found.metadata.uid:
            raise forbidden(request, f"node {node} UID mismatch: expected {owner.uid} got {found.metadata.uid}")
        referenced = _api_reference(pod)
        if referenced:
            raise forbidden(request, f"node {shown} can not create pods that reference {referenced}")

    async def _token(self, node: str, request: AdmissionRequest) -> None:
        if request.operation != CREATE or request.subresource != "token":
            return
        spec = request.object.spec
        reference = spec.bound_object_ref
        if reference is None or (reference.api_version, reference.kind) != ("v1", "Pod") or not reference.name:
            raise forbidden(request, "node requested token not bound to a pod")
        if not reference.uid:
            raise forbidden(request, "node requested token with a pod binding without a uid")
        pod = self._find_pod(request, reference.name)
        if reference.uid != pod.metadata.uid:
            raise forbidden(
                request,
                f"the UID in the bound object reference ({reference.uid}) does not match the UID in record. The object"
                " might have been deleted and then recreated",
            )
        if pod.spec.node_name != node:
            raise forbidden(request, "node requested token bound to a pod scheduled on a different node")
        await self._audience(request, pod, spec.audiences or [])

    async def _audience(self, request: AdmissionRequest, pod: core.Pod, audiences: list[str]) -> None:
        if len(audiences) > 1:
            raise forbidden(request, "node may only request 0 or 1 audiences")
        audience = audiences[0] if audiences else ""
        problems: list[str] = []
        for volume in pod.spec.volumes:
            try:
                if audience in self._audiences_of(pod, volume):
                    return
            except NotFound as error:
                problems.append(error.message)
        if problems:
            raise forbidden(request, f"error validating audience {quote(audience)}: {aggregate(problems)}")
        question = Attributes(
            request.user,
            "request-serviceaccounts-token-audience",
            namespace=request.namespace,
            version="v1",
            resource=audience,
            name=request.name,
        )
        if (await decide(self._authorizer, question)).verdict is not Verdict.ALLOW:
            raise forbidden(
                request,
                f"audience {quote(audience)} not found in pod spec volume, {request.user.name} is not authorized to"
                " request tokens for this audience",
            )

    def _audiences_of(self, pod: core.Pod, volume: core.Volume) -> Iterator[str]:
        """Yield the audiences that a volume is for; raise NotFound for what leads to its driver."""
        if volume.projected is not None:
            for source in volume.projected.sources or ():
                if source.service_account_token is not None:
                    yield source.service_account_token.audience
        driver = self._driver_of(pod, volume)
        if driver:
            found = self._objects.get(self._drivers, "", driver)
            if found is None:
                raise NotFound.of(GroupResource("storage.k8s.io", "csidriver"), driver)
            yield from (wanted.audience for wanted in found.spec.token_requests)

    def _driver_of(self, pod: core.Pod, volume: core.Volume) -> str:
        if volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None:
            return self._driver_of_claim(pod.metadata.namespace, podreferences.ephemeral_claim_name(pod, volume))
        if volume.persistent_volume_claim is not None:
            return self._driver_of_claim(pod.metadata.namespace, volume.persistent_volume_claim.claim_name)
        return volume.csi.driver if volume.csi is not None else _migrated(volume)

    def _driver_of_claim(self, namespace: str, name: str) -> str:
        claim = self._objects.get(self._claims, namespace, name)
        if claim is None:
            raise NotFound.of(GroupResource("", "persistentvolumeclaim"), name)
        found = self._objects.get(self._volumes, "", claim.spec.volume_name)
        if found is None:
            raise NotFound.of(GroupResource("", "persistentvolume"), claim.spec.volume_name)
        return found.spec.csi.driver if found.spec.csi is not None else _migrated(found.spec)


def _migrated(source: core.Volume | core.PersistentVolumeSpec) -> str:
    """Return the CSI driver that serves a volume of an old kind, "" if it is of another."""
    return next((driver for kind, driver in _MIGRATED.items() if getattr(source, kind) is not None), "")


def _api_reference(pod: core.Pod) -> str:
    """Return what objects of the API a pod depends on, "" if none."""
    spec = pod.spec
    if spec.service_account_name:
        return "serviceaccounts"
    if next(podreferences.secret_names(spec), None) is not None:
        return "secrets"
    if next(podreferences.config_map_names(spec), None) is not None:
        return "configmaps"
    if spec.resource_claims:
        return "resourceclaims"
    for volume in spec.volumes:
        for source, word in (
            (volume.config_map, "configmaps (via configmap volumes)"),
            (volume.secret, "secrets (via secret volumes)"),
            (volume.csi, "csidrivers (via CSI volumes)"),
            (volume.glusterfs, "endpoints (via glusterFS volumes)"),
            (volume.persistent_volume_claim, "persistentvolumeclaims"),
            (volume.ephemeral, "persistentvolumeclaims (via ephemeral volumes)"),
            (volume.azure_file, "secrets (via azureFile volumes)"),
        ):
            if source is not None:
                return word
        for projection in (volume.projected.sources or ()) if volume.projected is not None else ():
            for part, word in (
                (projection.config_map, "configmaps (via projected volumes)"),
                (projection.secret, "secrets (via projected volumes)"),
                (projection.service_account_token, "serviceaccounts (via projected volumes)"),
                (projection.cluster_trust_bundle, "clustertrustbundles"),
                (projection.pod_certificate, "podcertificates"),
            ):
                if part is not None:
                    return word
    return ""


def _pod_status(node: str, request: AdmissionRequest) -> None:
    old: core.Pod = request.old
    new: core.Pod = request.object
    shown = quote(node)
    if old.spec.node_name != node:
        text = f"node {shown} can only update pod status for pods with spec.nodeName set to itself"
        raise forbidden(request, text)
    if old.metadata.labels != new.metadata.labels:
        raise forbidden(request, f"node {shown} cannot update labels through pod status")
    if old.status.resource_claim_statuses != new.status.resource_claim_statuses:
        raise forbidden(request, f"node {shown} cannot update resource claim statues")
    if old.status.extended_resource_claim_status != new.status.extended_resource_claim_status:
        raise forbidden(request, f"node {shown} cannot update extended resource claim status")


def _node(node: str, request: AdmissionRequest) -> None:
    if request.name != node:
        raise forbidden(request, f"node {quote(node)} is not allowed to modify node {quote(request.name)}")
    if request.operation == DELETE:
        return
    new: core.Node = request.object
    old = request.old if request.operation == UPDATE else None
    shown = quote(node)
    if old is None:
        if new.spec.config_source is not None:
            raise forbidden(request, f"node {shown} is not allowed to create pods with a non-nil configSource")
    else:
        if new.spec.config_source is not None and new.spec.config_source != old.spec.config_source:
            text = f"node {shown} is not allowed to update configSource to a new non-nil configSource"
            raise forbidden(request, text)
        if new.spec.taints != old.spec.taints:
            raise forbidden(request, f"node {shown} is not allowed to modify taints")
        if new.metadata.owner_references != old.metadata.owner_references:
            raise forbidden(request, f"node {shown} is not allowed to modify ownerReferences")
    labels = sorted(_forbidden_labels(new.metadata.labels, old.metadata.labels if old is not None else {}))
    if labels:
        told = (
            f"node {shown} is not allowed to set the following labels"
            if old is None
            else ("is not allowed to modify labels")
        )
        raise forbidden(request, f"{told}: {', '.join(labels)}")


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> Iterator[str]:
    for key in new.keys() | old.keys():
        if new.get(key) == old.get(key):
            continue
        domain = key.partition("/")[0] if "/" in key else ""
        if _is_within(domain, RESTRICTED_LABELS):
            yield key
        elif any(_is_within(domain, own) for own in _OWN_DOMAINS) or key in _OWN_LABELS:
            continue
        elif _is_within(domain, "kubernetes.io") or _is_within(domain, "k8s.io"):
            yield key


def _is_within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


def _claim(node: str, request: AdmissionRequest) -> None:
    if request.subresource != "status":
        raise forbidden(request, "may only update PVC status")
    if request.operation != UPDATE:
        raise forbidden(request, f"unexpected operation {quote(request.operation)}")
    if _without_status(request.object) != _without_status(request.old):
        raise forbidden(
            request,
            f"node {quote(node)} is not allowed to update fields other than status.quantity and status.conditions",
        )


def _without_status(claim: core.PersistentVolumeClaim) -> core.PersistentVolumeClaim:
    bare = serialization.copy(claim)
    bare.metadata.resource_version = ""
    bare.metadata.managed_fields = []
    bare.status.capacity = {}
    bare.status.conditions = []
    bare.status.allocated_resources = {}
    bare.status.allocated_resource_statuses = {}
    return bare


def _lease(node: str, request: AdmissionRequest) -> None:
    if request.namespace != "kube-node-lease":
        raise forbidden(request, 'can only access leases in the "kube-node-lease" system namespace')
    _named_as_node(node, request, "node lease")


def _named_as_node(node: str, request: AdmissionRequest, what: str) -> None:
    metadata: meta.ObjectMeta | None = request.object.metadata if request.operation == CREATE else None
    if (metadata.name if metadata is not None else request.name) != node:
        raise forbidden(request, f"can only access {what} with the same name as the requesting node")


def _resource_slice(node: str, request: AdmissionRequest) -> None:
    if request.operation == UPDATE:
        return  # The authorizer has seen to it, and the node's name cannot change.
    found: Any = request.object if request.operation == CREATE else request.old
    word = "create" if request.operation == CREATE else "delete"
    if found.spec.node_name != node:
        raise forbidden(request, f"can only {word} ResourceSlice with the same NodeName as the requesting node")


def _signing_request(node: str, request: AdmissionRequest) -> None:
    if request.operation != CREATE or request.object.spec.signer_name not in _KUBELET_SIGNERS:
        return
    try:
        subject = parse_request(request.object.spec.request).subject
    except BadRequestPem as error:
        raise forbidden(request, f"unable to parse csr: {error}") from error
    names = [part.value for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [f"system:node:{node}"]:
        raise forbidden(request, f"can only create a node CSR with CN=system:node:{node}")
