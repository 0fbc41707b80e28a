"""Objects for the specs of workload controllers, and a kubelet in one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.spec.controllers.world import World

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.apimachinery import meta, serialization, times
from haven.apimachinery.names import UID
from haven.controllers.actions import Update
from haven.controllers.daemonset import node_name_of

LABELS = {"app": "web"}
SELECTOR = meta.LabelSelector(match_labels=LABELS)


def a_template(image: str = "one", labels: Mapping[str, str] | None = None) -> core.PodTemplateSpec:
    return core.PodTemplateSpec(
        metadata=meta.ObjectMeta(labels=dict(labels or LABELS)),
        spec=core.PodSpec(containers=[core.Container(name="main", image=image)]),
    )


def a_pod(
    name: str,
    *,
    phase: str = "Running",
    ready: bool = True,
    node: str = "n",
    since: str = "2026-01-01T00:00:00Z",
    created: str = "2026-01-01T00:00:00Z",
    labels: Mapping[str, str] | None = None,
    owner: meta.OwnerReference | None = None,
) -> core.Pod:
    condition = core.PodCondition(type="Ready", status="True" if ready else "False", last_transition_time=since)
    return core.Pod(
        metadata=meta.ObjectMeta(
            name=name,
            namespace="default",
            uid=UID(f"uid-{name}"),
            creation_timestamp=created,
            labels=dict(labels or LABELS),
            owner_references=[owner] if owner else [],
        ),
        spec=core.PodSpec(node_name=node),
        status=core.PodStatus(phase=phase, conditions=[condition]),
    )


def run_pods(world: World, choose: Callable[[core.Pod], bool] = lambda _pod: True) -> None:
    """Have the chosen Pods that wait run and be ready now; have those that are being deleted vanish."""
    for pod in world.all(core.Pod):
        if pod.metadata.deletion_timestamp is not None:
            continue
        if pod.status.phase in ("", "Pending") and choose(pod):
            set_phase(world, pod, "Running", ready=True)
    world.settle()


def set_phase(world: World, pod: core.Pod, phase: str, *, ready: bool = False) -> None:
    """Report a Pod's phase."""

    def change(target: core.Pod) -> None:
        target.spec.node_name = target.spec.node_name or node_name_of(target) or "n"
        target.status.phase = phase
        now = times.format_time(world.now)
        ready_status = "True" if ready else "False"
        target.status.conditions = [core.PodCondition(type="Ready", status=ready_status, last_transition_time=now)]

    world.change(core.Pod, pod.metadata.namespace, pod.metadata.name, change)


class Workloads(World):
    """A world in which new Pods wait, as the API server makes them."""

    def put(self, *objects: Any) -> Any:
        stored = None
        for obj in objects:
            each = serialization.copy(obj)
            if isinstance(each, core.Pod):
                each.status.phase = each.status.phase or "Pending"
            each.metadata.generation = each.metadata.generation or 1
            stored = super().put(each)
        return stored

    def _update(self, action: Update) -> Any:
        stored = super()._update(action)
        if action.subresource == "status" and isinstance(action.obj, apps.Deployment):
            # The status of Deployments takes annotations along: that is how the revision gets there.
            stored = serialization.copy(stored)
            stored.metadata.annotations = dict(action.obj.metadata.annotations)
            stored = self._store(stored)
        return stored

    def edit(self, kind: type[Any], name: str, change: Callable[[Any], None]) -> None:
        """Change an object's spec, which makes a new generation."""

        def edited(obj: Any) -> None:
            change(obj)
            obj.metadata.generation += 1

        self.change(kind, "default", name, edited)
        self.settle()
