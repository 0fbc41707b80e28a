"""ControllerRevisions: the templates that a StatefulSet or DaemonSet had, so that it can roll on and back.

A revision's data is a patch that replaces the template. Two revisions are equal when their data is.
Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.client.owner import controller_reference
from haven.controllers.actions import Create, Delete, Fetch, Steps, Update
from haven.controllers.podtemplates import encode_hash, sorted_tree

__all__ = [
    "HASH",
    "by_revision",
    "create_revision",
    "data_of",
    "equal_revisions",
    "new_revision",
    "next_number",
    "surplus",
    "template_of",
    "trim",
    "with_number",
]

HASH = "controller.kubernetes.io/hash"
REVISION_LABEL = "controller-revision-hash"
NAME_PREFIX_MAX = 223


def data_of(template: core.PodTemplateSpec) -> dict[str, Any]:
    """Return the patch that sets a template.

    Keys are in order: clients tell which revision is current by comparing its bytes with those that Go would write.
    """
    tree = serialization.to_tree(template)
    result: dict[str, Any] = sorted_tree({"spec": {"template": {**tree, "$patch": "replace"}}})
    return result


def template_of(revision: apps.ControllerRevision) -> core.PodTemplateSpec:
    """Return the template that a revision holds."""
    tree = dict(revision.data["spec"]["template"])
    tree.pop("$patch", None)
    return serialization.convert(tree, core.PodTemplateSpec)


def by_revision(revisions: Iterable[apps.ControllerRevision]) -> list[apps.ControllerRevision]:
    """Return the revisions, oldest first."""
    return sorted(
        revisions,
        key=lambda each: (each.revision, each.metadata.creation_timestamp or "", each.metadata.name),
    )


def next_number(revisions: Sequence[apps.ControllerRevision]) -> int:
    """Return the number after the highest."""
    return max((each.revision for each in revisions), default=0) + 1


def equal_revisions(
    revisions: Iterable[apps.ControllerRevision], wanted: apps.ControllerRevision
) -> list[apps.ControllerRevision]:
    """Return the revisions with the same template."""
    template = template_of(wanted)
    return [each for each in revisions if each.data == wanted.data or template_of(each) == template]


def new_revision(owner: Any, number: int, collision_count: int) -> apps.ControllerRevision:
    """Return the revision of the owner's template."""
    data = data_of(owner.spec.template)
    hash = encode_hash(serialization.encode_tree(data), collision_count)
    return apps.ControllerRevision(
        metadata=meta.ObjectMeta(
            name=f"{owner.metadata.name[:NAME_PREFIX_MAX]}-{hash}",
            namespace=owner.metadata.namespace,
            labels={**owner.spec.template.metadata.labels, HASH: hash},
            annotations=dict(owner.metadata.annotations),
            owner_references=[controller_reference(owner, resource_of(type(owner)).gvk)],
        ),
        data=data,
        revision=number,
    )


def create_revision(
    owner: Any, number: int, collision_count: int, label: str = ""
) -> Steps[tuple[apps.ControllerRevision, int]]:
    """Create the revision of the owner's template under a free name; return it and the new collision count.

    `label` is where DaemonSets have the hash.
    """
    while True:
        wanted = new_revision(owner, number, collision_count)
        if label:
            wanted.metadata.labels[label] = wanted.metadata.labels.pop(HASH)
        try:
            return (yield Create(wanted)), collision_count
        except apierrors.AlreadyExists:
            resource = resource_of(apps.ControllerRevision)
            existing = yield Fetch(resource, wanted.metadata.namespace, wanted.metadata.name)
            if existing is not None and existing.data == wanted.data:
                return existing, collision_count
            collision_count += 1


def with_number(revision: apps.ControllerRevision, number: int) -> Steps[apps.ControllerRevision]:
    """Give a revision a number, as an old template becomes the newest again."""
    if revision.revision == number:
        return revision
    changed = serialization.copy(revision)
    changed.revision = number
    result: apps.ControllerRevision = yield Update(changed)
    return result


def surplus(
    revisions: Sequence[apps.ControllerRevision], live_names: Collection[str], limit: int
) -> list[apps.ControllerRevision]:
    """Return the oldest revisions beyond the limit among those that no Pod uses."""
    unused = [each for each in by_revision(revisions) if each.metadata.name not in live_names]
    return unused[: max(len(unused) - limit, 0)]


def trim(revisions: Sequence[apps.ControllerRevision], live_names: Collection[str], limit: int | None) -> Steps[None]:
    """Delete the revisions beyond the history limit."""
    for each in surplus(revisions, live_names, 10 if limit is None else limit):
        yield Delete(resource_of(apps.ControllerRevision), each.metadata.namespace, each.metadata.name)
