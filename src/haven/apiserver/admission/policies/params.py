"""The objects that policies take parameters from, of any kind that the server knows.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#parameter-resources
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from haven.api.admissionregistration import v1
from haven.api.scheme import Resource
from haven.apimachinery import meta, serialization
from haven.apimachinery.selectors import SelectorError, from_label_selector
from haven.apiserver.admission.interface import Objects
from haven.apiserver.admission.versions import ServedVersions

__all__ = ["Misconfigured", "Parameters", "StoredParameters"]

Tree = dict[str, Any]


class Misconfigured(Exception):
    """A policy or binding asks for what can not be had; the failure policy decides."""


class Parameters(Protocol):
    """Finds parameters."""

    def resource(self, kind: v1.ParamKind) -> Resource[Any]:
        """Return the resource of a kind; raise Misconfigured."""
        ...

    async def collect(
        self, kind: v1.ParamKind | None, reference: v1.ParamRef | None, namespace: str
    ) -> Sequence[Tree | None]:
        """Return the parameters to evaluate a policy with, each in turn; None is one without; raise Misconfigured."""
        ...


class StoredParameters:
    """Parameters among the stored objects."""

    def __init__(self, objects: Objects, versions: ServedVersions) -> None:
        self._objects = objects
        self._versions = versions

    def resource(self, kind: v1.ParamKind) -> Resource[Any]:
        for endpoint in self._versions.endpoints.values():
            resource = endpoint.resource
            if resource.kind == kind.kind and resource.api_version == kind.api_version:
                return resource
        group, _, version = kind.api_version.rpartition("/")
        shown = f"{group}/{version}, Kind={kind.kind}"
        raise Misconfigured(f"failed to find resource referenced by paramKind: '{shown}'")

    async def collect(
        self, kind: v1.ParamKind | None, reference: v1.ParamRef | None, namespace: str
    ) -> Sequence[Tree | None]:
        if kind is None or reference is None:
            return [None]
        resource = self.resource(kind)
        if resource.namespaced:
            namespace = reference.namespace or namespace
            if not namespace:
                raise Misconfigured(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif reference.namespace:
            raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        else:
            namespace = ""
        found = self._find(resource, reference, namespace)
        if not found and reference.parameter_not_found_action == "Deny":
            raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return [serialization.to_tree(await self._versions.show(obj, resource, "")) for obj in found]

    def _find(self, resource: Resource[Any], reference: v1.ParamRef, namespace: str) -> list[Any]:
        if reference.name:
            if reference.selector is not None:
                raise Misconfigured("paramRef.name and paramRef.selector are mutually exclusive")
            obj = self._objects.get(resource, namespace, reference.name)
            return [obj] if obj is not None else []
        if reference.selector is None:
            raise Misconfigured("one of name or selector must be provided")
        try:
            selector = from_label_selector(reference.selector)
        except SelectorError as error:
            raise Misconfigured(str(error)) from None
        return [
            obj
            for obj in self._objects.list(resource, namespace)
            if selector.matches(obj.metadata.labels if isinstance(obj.metadata, meta.ObjectMeta) else {})
        ]
