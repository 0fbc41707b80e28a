"""Keeps an APIService for each served version of each CustomResourceDefinition, as upstream's aggregator does.

Those that it keeps carry the label kube-aggregator.kubernetes.io/automanaged: "true"; others it leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from haven.api.apiextensions import v1 as apiextensions
from haven.api.apiregistration import v1
from haven.apimachinery import meta
from haven.apimachinery.names import UID

__all__ = ["Create", "Delete", "Update", "plan", "wanted"]

LABEL = "kube-aggregator.kubernetes.io/automanaged"
_GROUP_PRIORITY, _VERSION_PRIORITY = 1000, 100  # Behind everything that is built in.


@dataclass(frozen=True)
class Create:
    """An APIService is missing."""

    service: v1.APIService


@dataclass(frozen=True)
class Update:
    """An APIService says something else."""

    service: v1.APIService


@dataclass(frozen=True)
class Delete:
    """An APIService of a version that is served no longer. The UID is a precondition."""

    name: str
    uid: UID


def wanted(definitions: Iterable[apiextensions.CustomResourceDefinition]) -> dict[str, v1.APIServiceSpec]:
    """Return what there should be, by name."""
    result: dict[str, v1.APIServiceSpec] = {}
    for definition in definitions:
        group = definition.spec.group
        for version in definition.spec.versions or ():
            if version.served:
                result[f"{version.name}.{group}"] = v1.APIServiceSpec(
                    group=group,
                    version=version.name,
                    group_priority_minimum=_GROUP_PRIORITY,
                    version_priority=_VERSION_PRIORITY,
                )
    return result


def plan(
    specs: Mapping[str, v1.APIServiceSpec], present: Iterable[v1.APIService]
) -> Iterator[Create | Update | Delete]:
    """Yield what has to be done; nothing if all is well. What is present is not changed."""
    seen: set[str] = set()
    for service in present:
        name = service.metadata.name
        seen.add(name)
        if service.metadata.labels.get(LABEL) != "true":
            continue
        spec = specs.get(name)
        if spec is None:
            yield Delete(name, service.metadata.uid)
        elif spec != service.spec:
            changed: Any = v1.APIService(metadata=service.metadata, spec=spec, status=service.status)
            yield Update(changed)
    for name, spec in specs.items():
        if name not in seen:
            yield Create(v1.APIService(metadata=meta.ObjectMeta(name=name, labels={LABEL: "true"}), spec=spec))
