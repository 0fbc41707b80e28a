"""Rows of the group apps."""

from __future__ import annotations

from typing import Any

from haven.api.apps import v1 as apps_v1
from haven.apimachinery import meta
from haven.apimachinery.selectors import SelectorError, format_label_selector, from_label_selector
from haven.apiserver.printers.format import NONE, age, containers, labels

__all__ = ["ROWS"]


def _deployment(item: apps_v1.Deployment, now: float) -> list[Any]:
    status = item.status
    return [
        item.metadata.name,
        f"{status.ready_replicas}/{item.spec.replicas or 0}",
        status.updated_replicas,
        status.available_replicas,
        age(item.metadata.creation_timestamp, now),
        *containers(item.spec.template.spec.containers),
        _selector(item.spec.selector),
    ]


def _selector(selector: meta.LabelSelector | None) -> str:
    try:
        return str(from_label_selector(selector))
    except SelectorError:
        return "<invalid>"


def _replica_set(item: apps_v1.ReplicaSet, now: float) -> list[Any]:
    return [
        item.metadata.name,
        item.spec.replicas or 0,
        item.status.replicas,
        item.status.ready_replicas,
        age(item.metadata.creation_timestamp, now),
        *containers(item.spec.template.spec.containers),
        format_label_selector(item.spec.selector),
    ]


def _stateful_set(item: apps_v1.StatefulSet, now: float) -> list[Any]:
    return [
        item.metadata.name,
        f"{item.status.ready_replicas}/{item.spec.replicas or 0}",
        age(item.metadata.creation_timestamp, now),
        *containers(item.spec.template.spec.containers),
    ]


def _daemon_set(item: apps_v1.DaemonSet, now: float) -> list[Any]:
    status = item.status
    return [
        item.metadata.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        labels(item.spec.template.spec.node_selector),
        age(item.metadata.creation_timestamp, now),
        *containers(item.spec.template.spec.containers),
        format_label_selector(item.spec.selector),
    ]


def _controller_revision(item: apps_v1.ControllerRevision, now: float) -> list[Any]:
    owner = next((one for one in item.metadata.owner_references if one.controller), None)
    return [
        item.metadata.name,
        NONE if owner is None else _owner(owner),
        item.revision,
        age(item.metadata.creation_timestamp, now),
    ]


def _owner(owner: meta.OwnerReference) -> str:
    group = owner.api_version.rpartition("/")[0]
    kind = f"{owner.kind}.{group}" if group else owner.kind
    return f"{kind.lower()}/{owner.name}" if kind else owner.name


ROWS = {
    "ControllerRevision": _controller_revision,
    "DaemonSet": _daemon_set,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
}
