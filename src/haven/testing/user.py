"""Another user of a cluster, for testing what RBAC allows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haven.apiserver.authentication.interface import ALL_AUTHENTICATED
from haven.apiserver.request import UserInfo
from haven.testing.clients import make_client
from haven.testing.objects import Manifest, Objects, UnknownKind, read_manifests

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster

__all__ = ["User"]


class User:
    """A user by name and groups; calls raise Forbidden where RBAC says no."""

    def __init__(self, cluster: Cluster, name: str, groups: tuple[str, ...], namespace: str) -> None:
        self._cluster = cluster
        self.name = name
        self.groups = groups
        self.namespace = namespace
        info = UserInfo(name, groups=tuple(dict.fromkeys((*groups, ALL_AUTHENTICATED))))
        self._objects = Objects(cluster.world.server.local_transport(info), cluster.world)

    def __repr__(self) -> str:
        return f"User({self.name!r}, groups={self.groups!r})"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file with a client certificate of this user."""
        key = hashlib.sha256(repr((self.name, self.groups, self.namespace)).encode()).hexdigest()[:16]
        return self._cluster.write_file(
            f"user-{key}.kubeconfig",
            self._cluster.world.kubeconfig(self.name, self.groups, namespace=self.namespace),
        )

    @property
    def env(self) -> dict[str, str]:
        """The environment for programs that shall act as this user."""
        return {**self._cluster.env, "KUBECONFIG": str(self.kubeconfig)}

    def client(self, library: str = "kubernetes") -> Any:
        """Return a client that acts as this user, as Cluster.client."""
        return self._cluster.keep_client(make_client(library, self.kubeconfig))

    def can(
        self, verb: str, resource: str, *, namespace: str | None = None, name: str = "", subresource: str = ""
    ) -> bool:
        """Tell whether the user may do something; `namespace` "" asks about all of them.

        `resource` is any name of a kind, with a subresource behind a slash: deploy, pods/log, shops.example.org.
        """
        resource, _, behind = resource.partition("/")
        try:
            found = self._objects.resource(resource)
            plural, group = found.plural, found.group
        except UnknownKind:  # Rights may be about what is not served (yet), or about all: "*".
            plural, _, group = resource.partition(".")
        attributes = {
            "verb": verb,
            "resource": plural,
            "group": group,
            "namespace": self.namespace if namespace is None else namespace,
            "name": name,
            "subresource": subresource or behind,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._cluster.run(self._objects.request("POST", path, review))
        return bool(answer["status"].get("allowed"))

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """As Cluster.get."""
        return self._cluster.run(self._objects.get(kind, name, namespace or self.namespace))

    def list(
        self, kind: str, namespace: str | None = None, *, selector: str = "", field_selector: str = ""
    ) -> Sequence[dict[str, Any]]:
        """As Cluster.list, but of the user's namespace; "" asks for all of them."""
        place = self.namespace if namespace is None else namespace
        return self._cluster.run(self._objects.list(kind, place, selector=selector, field_selector=field_selector))

    def apply(self, manifest: Manifest) -> Sequence[dict[str, Any]]:
        """As Cluster.apply."""
        return [self._cluster.run(self._objects.apply(self._placed(obj))) for obj in read_manifests(manifest)]

    def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """As Cluster.create."""
        return self._cluster.run(self._objects.create(self._placed(obj)))

    def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
        type: str = "",
    ) -> dict[str, Any]:
        """As Cluster.patch."""
        place = namespace or self.namespace
        return self._cluster.run(self._objects.patch(kind, name, patch, place, subresource=subresource, type=type))

    def replace(self, obj: Mapping[str, Any], *, subresource: str = "") -> dict[str, Any]:
        """As Cluster.replace."""
        return self._cluster.run(self._objects.replace(self._placed(obj), subresource=subresource))

    def request(self, method: str, path: str, body: Any = None, **rest: Any) -> Any:
        """As Cluster.request."""
        return self._cluster.run(self._objects.request(method, path, body, **rest))

    def _placed(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        return self._cluster.world.placed(obj, self.namespace)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """As Cluster.delete."""
        self._cluster.run(self._objects.delete(kind, name, namespace or self.namespace))
