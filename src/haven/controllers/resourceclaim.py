"""Make the claims to devices that Pods ask for by template, and take back what Pods no longer use.

A claim is reserved for whoever uses it. When the last user is gone its allocation goes, and with it the finalizer; a
claim made for a Pod is deleted as soon as the Pod has ended.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from haven.api.core import v1 as core
from haven.api.resource import v1 as resource
from haven.api.scheme import resource_of
from haven.apimachinery import meta, serialization
from haven.client.interface import Patch, PatchType
from haven.client.owner import controller_reference, is_controlled_by
from haven.controllers import pods
from haven.controllers.actions import Change, Create, Delete, Emit, Fetch, Retry, Steps, Update, Wiring

__all__ = ["FINALIZER", "ResourceClaimController", "claim_base_name", "claims_of"]

FINALIZER = "resource.kubernetes.io/delete-protection"
POD_CLAIM = "resource.kubernetes.io/pod-claim-name"
USERS_MAX = 256
_MANAGER = "ResourceClaimController"
_BASE_MAX = 57  # A hyphen and five random characters complete a name of 63.
_TEMPLATES = "claim-templates"
_CLAIMS = "resource-claims"
_PODS = resource_of(core.Pod)
_RESOURCE_CLAIMS = resource_of(resource.ResourceClaim)


class _Key(NamedTuple):
    kind: str
    namespace: str
    name: str


def claim_base_name(pod: str, claim: str) -> str:
    """Return how the name of a claim made for a Pod begins; both names are shortened alike if they are long."""
    name = f"{pod}-{claim}-"
    if len(name) <= _BASE_MAX:
        return name
    return f"{pod[: len(pod) * _BASE_MAX // len(name)]}-{claim[: len(claim) * _BASE_MAX // len(name)]}"


def _is_done(pod: core.Pod) -> bool:
    deleted_early = pod.metadata.deletion_timestamp is not None and not pod.spec.node_name
    return pod.status.phase in ("Succeeded", "Failed") or deleted_early


def _claim_name(pod: core.Pod, asked: core.PodResourceClaim) -> str | None:
    """Return the claim's name; "" if it is still to be made, None if none is needed."""
    if asked.resource_claim_name is not None:
        return asked.resource_claim_name
    for status in pod.status.resource_claim_statuses:
        if status.name == asked.name:
            return status.resource_claim_name
    return ""


def claims_of(pod: core.Pod) -> Iterator[str]:
    """Yield the names of the claims that a Pod uses and that are made already."""
    for asked in pod.spec.resource_claims:
        name = _claim_name(pod, asked)
        if name:
            yield name
    extended = pod.status.extended_resource_claim_status
    if extended is not None:
        yield extended.resource_claim_name


def _index_claims(pod: core.Pod) -> Iterable[str]:
    return [f"{pod.metadata.namespace}/{name}" for name in claims_of(pod)]


def _index_templates(pod: core.Pod) -> Iterable[str]:
    asked = (each.resource_claim_template_name for each in pod.spec.resource_claims)
    return [f"{pod.metadata.namespace}/{name}" for name in asked if name]


class ResourceClaimController:
    """Keys are Pods that need claims, and claims whose users may be gone."""

    workers = 10

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pods = wiring.reader(core.Pod)
        self._claims = wiring.reader(resource.ResourceClaim)
        self._templates = wiring.reader(resource.ResourceClaimTemplate)
        self._pods.add_index(_CLAIMS, _index_claims)
        self._pods.add_index(_TEMPLATES, _index_templates)
        self._claims.add_index(pods.OWNED, pods.index_owned)
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._claim_changed)
        self._templates.add_handler(self._template_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = new if new is not None else old
        if pod is None or not (pod.spec.resource_claims or pod.status.extended_resource_claim_status):
            return
        namespace = pod.metadata.namespace
        if new is None or _is_done(pod):
            for name in claims_of(pod):
                self._wiring.enqueue(_Key("claim", namespace, name))
        elif pod.metadata.deletion_timestamp is None:
            self._wiring.enqueue(_Key("pod", namespace, pod.metadata.name))

    def _claim_changed(self, old: resource.ResourceClaim | None, new: resource.ResourceClaim | None) -> None:
        claim = new if new is not None else old
        if claim is None:
            return
        place = claim.metadata.namespace, claim.metadata.name
        if new is not None:
            self._wiring.enqueue(_Key("claim", *place))
        for pod in self._pods.indexed(_CLAIMS, "/".join(place)):
            if not _is_done(pod) and pod.metadata.deletion_timestamp is None:
                self._wiring.enqueue(_Key("pod", place[0], pod.metadata.name))

    def _template_changed(
        self, old: resource.ResourceClaimTemplate | None, new: resource.ResourceClaimTemplate | None
    ) -> None:
        if new is not None and old is None:
            for pod in self._pods.indexed(_TEMPLATES, f"{new.metadata.namespace}/{new.metadata.name}"):
                self._wiring.enqueue(_Key("pod", new.metadata.namespace, pod.metadata.name))

    def sync(self, key: _Key) -> Steps[None]:
        if key.kind == "pod":
            pod = self._pods.get(key.namespace, key.name)
            if pod is not None and pod.metadata.deletion_timestamp is None:
                yield from self._provide(pod)
            return
        claim = self._claims.get(key.namespace, key.name)
        if claim is not None:
            yield from self._release(claim)

    # ---- claims for a Pod

    def _provide(self, pod: core.Pod) -> Steps[None]:
        made: dict[str, str] = {}
        for asked in pod.spec.resource_claims:
            name = _claim_name(pod, asked)
            if asked.resource_claim_template_name is None or name is None:
                continue
            known = self._claims.get(pod.metadata.namespace, name) if name else None
            if known is not None and is_controlled_by(known, pod.metadata.uid):
                continue
            made[asked.name] = yield from self._claim_for(pod, asked, asked.resource_claim_template_name)
        if made:
            statuses = [{"name": name, "resourceClaimName": claim} for name, claim in made.items()]
            body = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace},
                "status": {"resourceClaimStatuses": statuses},
            }
            patch = Patch(PatchType.APPLY, body, field_manager=_MANAGER, force=True)
            yield Change(_PODS, pod.metadata.namespace, pod.metadata.name, patch, "status")
        if pod.spec.node_name:  # Otherwise the scheduler reserves.
            yield from self._reserve(pod)

    def _claim_for(self, pod: core.Pod, asked: core.PodResourceClaim, template_name: str) -> Steps[str]:
        """Return the name of a Pod's claim, made now unless an earlier pass got no further than that."""
        namespace = pod.metadata.namespace
        for claim in self._claims.indexed(pods.OWNED, pod.metadata.uid):
            if claim.metadata.annotations.get(POD_CLAIM) == asked.name:
                return claim.metadata.name
        template = self._templates.get(namespace, template_name)
        if template is None:
            complaint = f'resource claim template "{template_name}": resourceclaimtemplate.resource.k8s.io '
            complaint += f'"{template_name}" not found'
            yield Emit(pod, "Warning", "FailedResourceClaimCreation", f"PodResourceClaim {asked.name}: {complaint}")
            raise Retry(complaint)
        source = serialization.copy(template.spec)
        claim = resource.ResourceClaim(
            metadata=meta.ObjectMeta(
                generate_name=claim_base_name(pod.metadata.name, asked.name),
                namespace=namespace,
                labels=source.metadata.labels,
                annotations=source.metadata.annotations | {POD_CLAIM: asked.name},
                owner_references=[controller_reference(pod, _PODS.gvk)],
            ),
            spec=source.spec,
        )
        made: resource.ResourceClaim = yield Create(claim)
        return made.metadata.name

    def _reserve(self, pod: core.Pod) -> Steps[None]:
        """Reserve allocated claims for a Pod that got its node without the scheduler."""
        for name in claims_of(pod):
            claim = self._claims.get(pod.metadata.namespace, name)
            if claim is None or claim.status.allocation is None:
                continue
            users = claim.status.reserved_for
            if any(user.uid == pod.metadata.uid for user in users) or len(users) >= USERS_MAX:
                continue
            changed = serialization.copy(claim)
            changed.status.reserved_for = [
                *users,
                resource.ResourceClaimConsumerReference(resource="pods", name=pod.metadata.name, uid=pod.metadata.uid),
            ]
            yield Update(changed, "status")

    # ---- claims that are not used any more

    def _release(self, claim: resource.ResourceClaim) -> Steps[None]:
        remaining = []
        for user in claim.status.reserved_for:
            if (yield from self._still_uses(claim, user)):
                remaining.append(user)
        protected = FINALIZER in claim.metadata.finalizers
        if len(remaining) < len(claim.status.reserved_for):
            changed = serialization.copy(claim)
            changed.status.reserved_for = remaining
            if not remaining and protected:
                changed.status.allocation = None
            changed = yield Update(changed, "status")
            if protected and changed.status.allocation is None:
                yield from self._unprotect(changed)
        elif protected and claim.metadata.deletion_timestamp is not None and not remaining:
            changed = serialization.copy(claim)
            if changed.status.allocation is not None:
                changed.status.allocation = None
                changed = yield Update(changed, "status")
            yield from self._unprotect(changed)
        if not remaining:
            yield from self._delete_unused(claim)

    def _still_uses(self, claim: resource.ResourceClaim, user: resource.ResourceClaimConsumerReference) -> Steps[bool]:
        if user.api_group or user.resource != "pods":
            return True  # Who that is, others know.
        pod = self._pods.get(claim.metadata.namespace, user.name)
        if pod is None:  # It may be so new that our cache lacks it: ask before taking anything away.
            pod = yield Fetch(_PODS, claim.metadata.namespace, user.name)
        return pod is not None and pod.metadata.uid == user.uid and not _is_done(pod)

    def _unprotect(self, claim: resource.ResourceClaim) -> Steps[None]:
        changed = serialization.copy(claim)
        changed.metadata.finalizers = [name for name in changed.metadata.finalizers if name != FINALIZER]
        yield Update(changed)

    def _delete_unused(self, claim: resource.ResourceClaim) -> Steps[None]:
        """Delete a claim made for a Pod that has ended; the garbage collector sees to Pods that are gone."""
        owner = next((one for one in claim.metadata.owner_references if one.controller and one.kind == "Pod"), None)
        if owner is None or claim.metadata.deletion_timestamp is not None:
            return
        pod = self._pods.get(claim.metadata.namespace, owner.name)
        if pod is not None and (pod.metadata.uid != owner.uid or _is_done(pod)):
            yield Delete(_RESOURCE_CLAIMS, claim.metadata.namespace, claim.metadata.name, uid=claim.metadata.uid)
