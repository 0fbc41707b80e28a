"""Empty a namespace that is being deleted, Pods first, and then let it go.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/ and KEP-5080 (ordered deletion)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.client.metadata import metadata_only
from haven.controllers.actions import Delete, DeleteCollection, ListNow, Requeue, Retry, Steps, Update, Wiring, key_from
from haven.controllers.discovery import Discovered, discover
from haven.controllers.pods import seconds_of

__all__ = ["NamespaceController", "Remaining", "conditions_of"]

FINALIZER = "kubernetes"
FINALIZERS_ESTIMATE_SECONDS = 15  # How soon to look again at objects that wait for their finalizers.

_OK = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(slots=True)
class Remaining:
    """What a pass over a namespace's content found."""

    counts: dict[str, int] = field(default_factory=dict)  # by "resource.group"
    finalizers: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    estimate_seconds: int = 0


def conditions_of(
    current: Sequence[core.NamespaceCondition],
    remaining: Remaining,
    failed_groups: Sequence[str],
    now_seconds: float,
    *,
    totals: bool,
) -> list[core.NamespaceCondition]:
    """Return the conditions that tell how far deletion is; without `totals` remaining content goes untold."""
    found: dict[str, tuple[str, str]] = {}
    if failed_groups:
        text = ", ".join(f"{group}: stale GroupVersion discovery: {group}" for group in sorted(failed_groups))
        found["NamespaceDeletionDiscoveryFailure"] = (
            "DiscoveryFailed",
            f"Discovery failed for some groups, {len(failed_groups)} failing: "
            f"unable to retrieve the complete list of server APIs: {text}",
        )
    if remaining.errors:
        messages = ", ".join(sorted(remaining.errors))
        found["NamespaceDeletionContentFailure"] = (
            "ContentDeletionFailed",
            f"Failed to delete all resource types, {len(remaining.errors)} remaining: {messages}",
        )
    if totals and remaining.counts:
        parts = sorted(f"{name} has {count} resource instances" for name, count in remaining.counts.items())
        found["NamespaceContentRemaining"] = (
            "SomeResourcesRemain",
            f"Some resources are remaining: {', '.join(parts)}",
        )
    if totals and remaining.finalizers:
        parts = sorted(f"{name} in {count} resource instances" for name, count in remaining.finalizers.items())
        found["NamespaceFinalizersRemaining"] = (
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {', '.join(parts)}",
        )
    result = {each.type: each for each in current}
    now = times.format_time(now_seconds)
    for type, fine in _OK.items():
        status = "True" if type in found else "False"
        reason, message = found.get(type, fine)
        old = result.get(type)
        since = old.last_transition_time if old is not None and old.status == status else now
        result[type] = core.NamespaceCondition(
            type=type, status=status, reason=reason, message=message, last_transition_time=since
        )
    return list(result.values())


class NamespaceController:
    """The controller of namespaces that are being deleted."""

    workers = 10

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._namespaces = wiring.reader(core.Namespace)
        self._namespaces.add_handler(self._changed)
        wiring.reader(core.Pod).add_handler(self._pod_changed)

    def _changed(self, old: core.Namespace | None, new: core.Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._wiring.enqueue(key_from(new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        """Look again when a Pod is gone, rather than when it might be."""
        if new is None and old is not None:
            namespace = self._namespaces.get("", old.metadata.namespace)
            if namespace is not None and namespace.metadata.deletion_timestamp is not None:
                self._wiring.enqueue(key_from(namespace))

    def sync(self, key: NamespacedName) -> Steps[None]:
        cached = self._namespaces.get(*key)
        if cached is None or cached.metadata.deletion_timestamp is None:
            return
        namespace = cached
        if namespace.status.phase != "Terminating":
            changed = serialization.copy(namespace)
            changed.status.phase = "Terminating"
            namespace = yield Update(changed, "status")
        if FINALIZER not in namespace.spec.finalizers:
            return
        found = yield from discover()
        remaining, totals = yield from self._delete_content(namespace, found)
        conditions = conditions_of(
            namespace.status.conditions, remaining, found.failed, self._wiring.now_seconds(), totals=totals
        )
        if conditions != namespace.status.conditions:
            changed = serialization.copy(namespace)
            changed.status.conditions = conditions
            try:
                namespace = yield Update(changed, "status")
            except apierrors.Conflict as error:
                raise Retry(str(error)) from error
        if remaining.errors or found.failed:
            raise Retry(f"namespace {namespace.metadata.name}: {'; '.join(remaining.errors or found.failed)}")
        if remaining.estimate_seconds > 0:
            yield Requeue(remaining.estimate_seconds / 2 + 1)
            return
        final = serialization.copy(namespace)
        final.spec.finalizers = sorted(set(final.spec.finalizers) - {FINALIZER})
        try:
            yield Update(final, "finalize")
        except apierrors.NotFound:
            return

    def _delete_content(self, namespace: core.Namespace, found: Discovered) -> Steps[tuple[Remaining, bool]]:
        remaining = Remaining()
        resources = [each for each in found.having("delete") if each.namespaced]
        pods = [each for each in resources if each.group_resource == resource_of(core.Pod).group_resource]
        others = [each for each in resources if each not in pods]
        # Pods go first: what they need to end well, such as policies and secrets, must outlive them.
        for resource in pods:
            yield from self._delete_resource(namespace, resource, remaining)
        if remaining.counts:
            return remaining, False
        for resource in others:
            yield from self._delete_resource(namespace, resource, remaining)
        return remaining, True

    def _delete_resource(self, namespace: core.Namespace, resource: Resource[Any], remaining: Remaining) -> Steps[None]:
        name = namespace.metadata.name
        typed = resource if resource == resource_of(core.Pod) else metadata_only(resource)
        can_list = "list" in resource.verbs
        try:
            before = (yield ListNow(typed, name)) if can_list else []
            if can_list and not before:
                return
            estimate = self._estimate_seconds(namespace, before)
            if "deletecollection" in resource.verbs:
                yield DeleteCollection(f"{resource.path(name)}?propagationPolicy=Background")
            else:
                for each in before:
                    yield Delete(resource, name, each.metadata.name, propagation_policy="Background")
            after: list[Any] = (yield ListNow(typed, name)) if can_list else []
        except (apierrors.NotFound, apierrors.MethodNotAllowed):
            return  # The resource went away, or never could do it.
        except apierrors.ApiError as error:
            remaining.errors.append(str(error))
            return
        if not after:
            return
        finalizers: dict[str, int] = {}
        for each in after:
            for finalizer in each.metadata.finalizers:
                finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        if estimate == 0 and finalizers:
            estimate = FINALIZERS_ESTIMATE_SECONDS
        remaining.counts[f"{resource.plural}.{resource.group}"] = len(after)
        for finalizer, count in finalizers.items():
            remaining.finalizers[finalizer] = remaining.finalizers.get(finalizer, 0) + count
        if estimate == 0:
            text = f"unexpected items still remain in namespace: {name} for gvr: "
            remaining.errors.append(f"{text}{resource.group}/{resource.version}, Resource={resource.plural}")
        remaining.estimate_seconds = max(remaining.estimate_seconds, estimate)

    def _estimate_seconds(self, namespace: core.Namespace, objects: Iterable[Any]) -> int:
        """Return how long Pods may take to end; 0 when that time is over."""
        graces = [
            each.spec.termination_grace_period_seconds or 0
            for each in objects
            if isinstance(each, core.Pod) and each.status.phase not in ("Succeeded", "Failed")
        ]
        estimate = max(graces, default=0)
        since = self._wiring.now_seconds() - seconds_of(namespace.metadata.deletion_timestamp)
        return 0 if since >= estimate else estimate
