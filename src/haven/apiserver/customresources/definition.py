"""What a CustomResourceDefinition declares, compiled for those who serve its objects.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haven.api.apiextensions import v1
from haven.api.scheme import Resource, Subresource
from haven.apimachinery import serialization
from haven.apimachinery.schema import Schema, structural
from haven.apimachinery.schema.coercion import prune_defaults
from haven.apimachinery.unstructured import Unstructured

__all__ = ["CustomResource", "Definition", "Version", "compile_definition", "condition", "is_true", "kube_rank"]

Tree = dict[str, Any]
VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_SUBRESOURCE_VERBS = ("get", "patch", "update")
_version_name = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?", re.ASCII)


@dataclass(frozen=True)
class CustomResource(Resource[Unstructured]):
    """A custom resource at one version."""

    @property
    def type(self) -> type[Unstructured]:
        """Custom resources are trees with typed metadata."""
        return Unstructured

    __hash__ = Resource.__hash__
    __eq__ = Resource.__eq__


@dataclass(frozen=True, eq=False)
class Version:
    """One version that is served or stored. `open_api` is its schema as a tree, None if it declares none."""

    resource: CustomResource
    served: bool
    open_api: Tree | None
    schema: Schema
    has_status: bool = False
    scale: v1.CustomResourceSubresourceScale | None = None
    columns: Sequence[v1.CustomResourceColumnDefinition] = ()
    selectable: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The version, such as v1."""
        return self.resource.version


@dataclass(eq=False)
class Definition:
    """A definition whose names were accepted. `crd` is replaced when only its status changes."""

    crd: v1.CustomResourceDefinition
    list_kind: str
    storage_version: str
    versions: Mapping[str, Version] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The definition's own name."""
        return self.crd.metadata.name

    @property
    def group(self) -> str:
        """The API group."""
        return self.crd.spec.group

    @property
    def preserve_unknown(self) -> bool:
        """Whether fields that no schema declares are kept, as very old definitions may ask."""
        return self.crd.spec.preserve_unknown_fields

    @property
    def is_terminating(self) -> bool:
        """Whether the definition is being deleted."""
        return is_true(self.crd, "Terminating")

    @property
    def storage(self) -> Version:
        """The version in which objects are written."""
        return self.versions[self.storage_version]


def condition(crd: v1.CustomResourceDefinition, kind: str) -> v1.CustomResourceDefinitionCondition | None:
    """Return a condition of a definition."""
    return next((one for one in crd.status.conditions or () if one.type == kind), None)


def is_true(crd: v1.CustomResourceDefinition, kind: str) -> bool:
    """Tell whether a condition holds."""
    found = condition(crd, kind)
    return found is not None and found.status == "True"


def compile_definition(crd: v1.CustomResourceDefinition) -> Definition:
    """Return the definition for serving; its names are those that were accepted."""
    names = crd.status.accepted_names
    storage = next(version.name for version in crd.spec.versions or () if version.storage)
    versions = {
        version.name: _version(crd, version) for version in crd.spec.versions or () if version.served or version.storage
    }
    return Definition(crd, names.list_kind, storage, versions)


def _version(crd: v1.CustomResourceDefinition, version: v1.CustomResourceDefinitionVersion) -> Version:
    names, spec = crd.status.accepted_names, crd.spec
    open_api: Tree | None = None
    if version.schema is not None and version.schema.open_apiv3_schema is not None:
        open_api = serialization.to_tree(version.schema.open_apiv3_schema)
        assert open_api is not None
        if not spec.preserve_unknown_fields:
            prune_defaults(open_api)
    subresources = version.subresources
    has_status = subresources is not None and subresources.status is not None
    scale = subresources.scale if subresources is not None else None
    declared = [Subresource("status", names.kind, _SUBRESOURCE_VERBS)] if has_status else []
    if scale is not None:
        declared.append(Subresource("scale", "Scale", _SUBRESOURCE_VERBS))
    resource = CustomResource(
        group=spec.group,
        version=version.name,
        plural=names.plural,
        singular=names.singular,
        kind=names.kind,
        namespaced=spec.scope == "Namespaced",
        short_names=tuple(names.short_names),
        categories=tuple(names.categories),
        verbs=VERBS,
        subresources=tuple(declared),
    )
    return Version(
        resource,
        version.served,
        open_api,
        structural(open_api or {}, preserve_unknown=spec.preserve_unknown_fields),
        has_status=has_status,
        scale=scale,
        columns=version.additional_printer_columns,
        selectable=[one.json_path for one in version.selectable_fields],
        warnings=_warnings(crd, version),
    )


def _warnings(crd: v1.CustomResourceDefinition, version: v1.CustomResourceDefinitionVersion) -> list[str]:
    """Return what clients of a deprecated version are told."""
    if not version.deprecated:
        return []
    if version.deprecation_warning is not None:
        return [version.deprecation_warning]
    spec = crd.spec
    better = [
        one.name
        for one in spec.versions or ()
        if one.served and not one.deprecated and kube_rank(one.name) > kube_rank(version.name)
    ]
    text = f"{spec.group}/{version.name} {spec.names.kind} is deprecated"
    if better:
        text += f"; use {spec.group}/{max(better, key=kube_rank)} {spec.names.kind}"
    return [text]


def kube_rank(version: str) -> tuple[int, int, int, tuple[int, ...]]:
    """Rank versions, the preferred ones higher: v10, v2, v1, v11beta2, v10beta3, v3alpha1, then others from a to z."""
    found = _version_name.fullmatch(version)
    if found is None:
        return (-1, 0, 0, (*(-ord(letter) for letter in version), 1))
    stage = {None: 2, "beta": 1, "alpha": 0}[found.group(2)]
    return (stage, int(found.group(1)), int(found.group(3) or 0), ())
