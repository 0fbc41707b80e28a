"""What the server serves, for clients to find out: /api, /apis and everything below, and /version.

The documents are made from a list of served versions, each with its resources: those built in, those of
CustomResourceDefinitions and those of aggregated servers alike. They are kept as encoded bytes until the list changes.
Sources: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api and the order of groups and versions
in upstream's aggregator.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import msgspec

from haven import __version__
from haven.api.apidiscovery import v2
from haven.api.scheme import Resource, subresource_kind
from haven.api.version import Info
from haven.apimachinery import meta, serialization
from haven.apimachinery.apierrors import NotAcceptable, UnsupportedMediaType
from haven.apimachinery.codecs import protobuf, yaml
from haven.apimachinery.codecs.discoveryform import encode_group_discovery
from haven.apimachinery.codecs.negotiate import (
    DOCUMENTS,
    JSON,
    JSON_ONLY,
    PROTOBUF,
    YAML,
    Answer,
    Offer,
    check_route,
    is_pretty,
    negotiate,
)
from haven.apiserver.registry.resources import path_not_found
from haven.apiserver.request import Request, Response

__all__ = [
    "KUBERNETES_VERSION",
    "Discovery",
    "ServedVersion",
    "aggregate",
    "api_resources",
    "built_in",
    "is_stable",
    "storage_version_hash",
    "stored_as",
    "version_info",
    "version_order",
]

KUBERNETES_VERSION = "v1.36.2"
_MAJOR, _MINOR, _COMPATIBLE_MINOR = "1", "36", "35"

_AGGREGATED = ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
_AGGREGATED_TYPE = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_GROUP_LISTS = Offer(DOCUMENTS.media_types, conversions=(_AGGREGATED,))


def _form_of_lists(accept: str) -> Answer:
    """Return the form of a list of groups: one that holds everything comes first, wherever it is named."""
    wholes = ",".join(clause for clause in accept.split(",") if f"as={_AGGREGATED[0]}" in clause)
    if wholes:
        try:
            return negotiate(wholes, _GROUP_LISTS)
        except NotAcceptable:
            pass  # Then as if they were not named.
    return negotiate(accept, _GROUP_LISTS)


_CUSTOM_GROUP_PRIORITY, _CUSTOM_VERSION_PRIORITY = 1000, 100
_GROUP_PRIORITIES = {
    "apiregistration.k8s.io": 20000, "": 18000, "apps": 17800, "events.k8s.io": 17750,
    "authentication.k8s.io": 17700, "authorization.k8s.io": 17600, "autoscaling": 17500, "batch": 17400,
    "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100, "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700, "admissionregistration.k8s.io": 16700,
    "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300, "discovery.k8s.io": 16200,
    "resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100, "internal.apiserver.k8s.io": 16000,
    "storagemigration.k8s.io": 15800,
}  # fmt: skip

# What an object is stored as, where that is not the version it is served at.
_STORED_AS = {
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): ("admissionregistration.k8s.io", "v1beta1"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): ("admissionregistration.k8s.io", "v1beta1"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("apiextensions.k8s.io", "v1beta1"),
    ("events.k8s.io", "Event"): ("", "v1"),
    ("autoscaling", "HorizontalPodAutoscaler"): ("autoscaling", "v2"),
    ("certificates.k8s.io", "ClusterTrustBundle"): ("certificates.k8s.io", "v1beta1"),
    ("coordination.k8s.io", "LeaseCandidate"): ("coordination.k8s.io", "v1beta1"),
    ("networking.k8s.io", "IPAddress"): ("networking.k8s.io", "v1"),
    ("networking.k8s.io", "ServiceCIDR"): ("networking.k8s.io", "v1"),
    ("resource.k8s.io", "DeviceClass"): ("resource.k8s.io", "v1"),
    ("resource.k8s.io", "DeviceTaintRule"): ("resource.k8s.io", "v1alpha3"),
    ("resource.k8s.io", "ResourceClaim"): ("resource.k8s.io", "v1"),
    ("resource.k8s.io", "ResourceClaimTemplate"): ("resource.k8s.io", "v1"),
    ("resource.k8s.io", "ResourceSlice"): ("resource.k8s.io", "v1"),
    ("storage.k8s.io", "VolumeAttributesClass"): ("storage.k8s.io", "v1"),
}

_stable = re.compile(r"v[0-9]+", re.ASCII)
_version = re.compile(r"v([0-9]+)(?:(alpha|beta)([0-9]+))?", re.ASCII)


@dataclass(frozen=True)
class ServedVersion:
    """One version of a group, with its resources and subresources in the order in which they are listed."""

    group: str
    version: str
    resources: tuple[meta.APIResource, ...]
    group_priority: int = _CUSTOM_GROUP_PRIORITY
    version_priority: int = _CUSTOM_VERSION_PRIORITY
    freshness: str = "Current"
    names_kinds_fully: bool = False
    """Whether the aggregated document repeats the group and version of each kind, as it does for custom resources."""
    discovered: tuple[v2.APIResourceDiscovery, ...] | None = None
    """What another server says that it serves; None for what this one serves."""

    @property
    def group_version(self) -> str:
        """As in paths and documents: v1, apps/v1."""
        return f"{self.group}/{self.version}" if self.group else self.version


def is_stable(version: str) -> bool:
    """Tell whether a built-in version is served by default: alpha and beta ones are not."""
    return _stable.fullmatch(version) is not None


def stored_as(group: str, version: str, kind: str) -> tuple[str, str]:
    """Return the group and version in which a kind is stored; `version` is the one by default."""
    return _STORED_AS.get((group, kind), (group, version))


def storage_version_hash(group: str, version: str, kind: str) -> str:
    """Return what stands for the form in which a resource is stored."""
    group, version = stored_as(group, version, kind)
    return base64.b64encode(hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()[:8]).decode()


def api_resources(resource: Resource[Any], storage_version: str = "") -> list[meta.APIResource]:
    """Return a resource and its subresources as discovery lists them; `storage_version` by default the served one."""
    stored = "watch" in resource.verbs
    result = [
        meta.APIResource(
            name=resource.plural,
            singular_name=resource.singular,
            namespaced=resource.namespaced,
            kind=resource.kind,
            verbs=list(resource.verbs),
            short_names=list(resource.short_names),
            categories=list(resource.categories),
            storage_version_hash=storage_version_hash(
                resource.group, storage_version or resource.version, resource.kind
            )
            if stored
            else "",
        )
    ]
    for subresource in resource.subresources:
        group, version = ("", "")
        if subresource.kind != resource.kind:
            kind = subresource_kind(resource, subresource.name)
            if kind.group != resource.group:
                group, version = kind.group, kind.version
        result.append(
            meta.APIResource(
                name=f"{resource.plural}/{subresource.name}",
                namespaced=resource.namespaced,
                group=group,
                version=version,
                kind=subresource.kind,
                verbs=list(subresource.verbs),
            )
        )
    return result


def built_in(resources: Iterable[Resource[Any]]) -> list[ServedVersion]:
    """Return the served versions of built-in resources."""
    found: dict[tuple[str, str], list[meta.APIResource]] = {}
    for resource in resources:
        found.setdefault((resource.group, resource.version), []).extend(api_resources(resource))
    return [
        ServedVersion(
            group,
            version,
            tuple(sorted(listed, key=lambda item: item.name)),
            _GROUP_PRIORITIES.get(group, _CUSTOM_GROUP_PRIORITY),
            _version_priority(group, version),
        )
        for (group, version), listed in found.items()
    ]


def _version_priority(group: str, version: str) -> int:
    """Among built-in versions the stable ones lead; a newer stable version leads an older one (autoscaling)."""
    rank = _kube_rank(version)
    return 30 if rank[0] == 2 and rank[1] > 1 else 15 if rank[0] == 2 else 9 if rank[0] == 1 else 1


def _kube_rank(version: str) -> tuple[int, int, int, str]:
    """Rank versions as Kubernetes prefers them: v10, v2, v1, v11beta2, v10beta3, v3alpha1, then others from z to a."""
    match = _version.fullmatch(version)
    if match is None:
        return (-1, 0, 0, version)
    stage = {None: 2, "beta": 1, "alpha": 0}[match.group(2)]
    return (stage, int(match.group(1)), int(match.group(3) or 0), "")


def version_order(version: str) -> tuple[Any, ...]:
    """Return a key that sorts versions as Kubernetes prefers them."""
    stage, major, minor, other = _kube_rank(version)
    return (-stage, -major, -minor, other)


def _ordered(versions: Iterable[ServedVersion], *, is_aggregated: bool = False) -> list[list[ServedVersion]]:
    """Return the versions by group, both in order of preference.

    Groups preferred alike are ordered by name in the aggregated document, elsewhere by those of their APIServices.
    """
    by_group: dict[str, list[ServedVersion]] = {}
    for served in versions:
        by_group.setdefault(served.group, []).append(served)
    priority = {group: max(item.group_priority for item in items) for group, items in by_group.items()}

    def rank(served: ServedVersion) -> tuple[Any, ...]:
        return (-served.version_priority, *version_order(served.version))

    def group_rank(group: str) -> tuple[int, str]:
        first = [f"{one.version}.{group}" for one in by_group[group] if one.group_priority == priority[group]]
        return (-priority[group], group if is_aggregated else min(first))

    return [sorted(by_group[group], key=rank) for group in sorted(by_group, key=group_rank)]


def version_info() -> Info:
    """Return what /version says: the Kubernetes release that is implemented, with Haven's build after a plus."""
    return Info(
        major=_MAJOR,
        minor=_MINOR,
        emulation_major=_MAJOR,
        emulation_minor=_MINOR,
        min_compatibility_major=_MAJOR,
        min_compatibility_minor=_COMPATIBLE_MINOR,
        git_version=f"{KUBERNETES_VERSION}+haven.{__version__}",
        git_tree_state="clean",
        go_version=f"python{platform.python_version()}",
        compiler=platform.python_implementation().lower(),
        platform=f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
    )


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Discovery:
    """Answers requests for the discovery documents. `server_address` is what clients inside of the cluster use."""

    def __init__(self, versions: Sequence[ServedVersion], *, server_address: str, paths: Sequence[str] = ()) -> None:
        self._built_in = tuple(versions)
        self.built_in_versions = frozenset((served.group, served.version) for served in versions)
        """The (group, version) pairs that nobody else can serve."""
        self._added: dict[str, tuple[ServedVersion, ...]] = {}
        self._server_address = server_address
        self._paths = tuple(paths)
        self._groups: list[list[ServedVersion]] = []
        self._aggregated_groups: list[list[ServedVersion]] = []
        self._documents: dict[tuple[str, Answer], tuple[bytes, str]] = {}
        self.aggregations = 0
        """How often a document about all groups was put together."""
        self.replace(())

    def replace(self, versions: Sequence[ServedVersion], source: str = "custom") -> None:
        """List these versions besides those built in. A later source's take the place of an earlier one's.

        Sources are `custom` (resources that users define) and `remote` (other servers').
        """
        self._added[source] = tuple(versions)
        merged: dict[tuple[str, str], ServedVersion] = {}
        for listed in (self._built_in, self._added.get("custom", ()), self._added.get("remote", ())):
            merged.update({(one.group, one.version): one for one in listed})
        self._groups = _ordered(merged.values())
        self._aggregated_groups = _ordered(merged.values(), is_aggregated=True)
        self._documents.clear()

    def list_paths(self, paths: Iterable[str]) -> None:
        """Name further paths in the list of paths that / answers with."""
        self._paths = (*self._paths, *paths)
        self._documents.clear()

    @property
    def group_versions(self) -> list[tuple[str, str]]:
        """Every served (group, version), in order of preference."""
        return [(served.group, served.version) for group in self._groups for served in group]

    async def handle(self, request: Request) -> Response:
        """Answer for /, /api, /apis, /version and what is below; raise NotFound, NotAcceptable."""
        path = request.path.rstrip("/") or "/"
        if path == "/index.html":
            path = "/"
        accept = request.headers.get("accept", "")
        if path == "/version":
            _check_content_type(request, JSON_ONLY)
            check_route(accept, JSON_ONLY)
            body = msgspec.json.format(serialization.encode(version_info()), indent=2)
            return Response(200, {"Content-Type": JSON}, body)
        if path == "/api" or path.startswith("/api/") or path.count("/") > 2:  # Those have routes, which look first.
            _check_content_type(request, DOCUMENTS)
            check_route(accept, DOCUMENTS)
        if path == "/":  # Upstream's own list of paths, whatever a client accepts.
            paths = msgspec.json.encode(meta.RootPaths(paths=self._root_paths()))
            return Response(200, {"Content-Type": JSON}, msgspec.json.format(paths, indent=2))
        form = _form_of_lists(accept) if path in ("/api", "/apis") else negotiate(accept, DOCUMENTS)
        if form.media_type == JSON and is_pretty(request.get("pretty"), request.headers.get("user-agent", "")):
            form = replace(form, pretty=True)
        if path.startswith("/apis/") and not any(group[0].group == path.split("/")[2] for group in self._groups):
            text = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
            return Response(404, text, b"404 page not found\n")
        key = (path, form)
        if key not in self._documents:
            self._documents[key] = self._render(path, form)
            self.aggregations += bool(form.kind)
        body, etag = self._documents[key]
        if not form.kind:
            return Response(200, {"Content-Type": form.media_type}, body)
        headers = {
            "Content-Type": form.media_type + _AGGREGATED_TYPE,
            "Etag": etag,
            "Vary": "Accept",
            "Cache-Control": "public",
        }
        if request.headers.get("if-none-match") == etag:
            return Response(304, headers)
        return Response(200, headers, body)

    def _render(self, path: str, form: Answer) -> tuple[bytes, str]:
        """Return (document, entity tag)."""
        parts = path.strip("/").split("/")
        document: Any
        match parts:
            case ["api"] if form.kind:
                document = self._aggregated([group for group in self._groups if not group[0].group])
            case ["apis"] if form.kind:
                document = self._aggregated([group for group in self._aggregated_groups if group[0].group])
            case ["api"]:
                document = self._api_versions()
            case ["apis"]:
                groups = [_api_group(group) for group in self._groups if group[0].group]
                document = meta.APIGroupList(kind="APIGroupList", api_version="v1", groups=groups)
            case ["api", version]:
                document = self._resource_list("", version)
            case ["apis", name]:
                document = next(_api_group(group) for group in self._groups if group[0].group == name)
                document.kind, document.api_version = "APIGroup", "v1"
            case ["apis", name, version]:
                document = self._resource_list(name, version)
            case _:
                raise path_not_found()
        data = serialization.encode(document)
        return _as(data, form), _entity_tag(data) if form.kind else ""

    def _api_versions(self) -> meta.APIVersions:
        return meta.APIVersions(
            kind="APIVersions",
            versions=[served.version for group in self._groups for served in group if not served.group],
            server_address_by_client_cidrs=[
                meta.ServerAddressByClientCIDR(client_cidr="0.0.0.0/0", server_address=self._server_address)
            ],
        )

    def _resource_list(self, group: str, version: str) -> meta.APIResourceList:
        for items in self._groups:
            for served in items:
                if (served.group, served.version) == (group, version):
                    return meta.APIResourceList(
                        kind="APIResourceList",
                        # The core group's list carries none; recorded from upstream.
                        api_version="v1" if group else "",
                        group_version=served.group_version,
                        resources=list(served.resources),
                    )
        raise path_not_found()

    @staticmethod
    def _aggregated(groups: Sequence[Sequence[ServedVersion]]) -> v2.APIGroupDiscoveryList:
        items = [
            _GroupDiscovery(
                metadata=meta.ObjectMeta(name=group[0].group),
                versions=[
                    v2.APIVersionDiscovery(
                        version=served.version,
                        resources=_discovered(served),
                        freshness=served.freshness,
                    )
                    for served in group
                ],
            )
            for group in groups
        ]
        return v2.APIGroupDiscoveryList(items=items)  # type: ignore[arg-type]

    def _root_paths(self) -> list[str]:
        paths = {"/.well-known/openid-configuration", "/api", "/apis", "/apis/", *self._paths}
        for group in self._groups:
            for served in group:
                prefix = "/apis/" if served.group else "/api/"
                paths.add(prefix + served.group_version)
                if served.group:
                    paths.add(prefix + served.group)
        return sorted(paths)


class _GroupDiscovery(v2.APIGroupDiscovery):
    """A group inside of a list, which does not say its kind again."""

    kind: str = ""
    api_version: str = ""


def _api_group(versions: Sequence[ServedVersion]) -> meta.APIGroup:
    listed = [
        meta.GroupVersionForDiscovery(group_version=item.group_version, version=item.version) for item in versions
    ]
    return meta.APIGroup(name=versions[0].group, versions=listed, preferred_version=listed[0])


def _discovered(served: ServedVersion) -> list[v2.APIResourceDiscovery]:
    if served.discovered is not None:
        return list(served.discovered)
    if served.names_kinds_fully:
        return aggregate(served.resources, group=served.group, version=served.version)
    return aggregate(served.resources)


def aggregate(
    resources: Iterable[meta.APIResource], *, group: str = "", version: str = ""
) -> list[v2.APIResourceDiscovery]:
    """Return resources with their subresources inside of them.

    `group` and `version` are those of kinds that do not tell; they stay unsaid if not given.
    """
    result: list[v2.APIResourceDiscovery] = []
    for plural, items in groupby(resources, key=lambda item: item.name.partition("/")[0]):
        parent: v2.APIResourceDiscovery | None = None
        for item in items:
            kind = meta.GroupVersionKind(group=item.group, version=item.version, kind=item.kind)
            if not item.version and version:
                kind.group, kind.version = group, version
            if "/" not in item.name:
                parent = v2.APIResourceDiscovery(
                    resource=plural,
                    response_kind=kind,
                    scope="Namespaced" if item.namespaced else "Cluster",
                    singular_resource=item.singular_name,
                    verbs=item.verbs,
                    short_names=item.short_names,
                    categories=item.categories,
                )
                result.append(parent)
            else:
                if parent is None:  # A subresource of nothing that could be named, as upstream shows it.
                    scope = "Namespaced" if item.namespaced else "Cluster"
                    parent = v2.APIResourceDiscovery(
                        resource=plural, response_kind=meta.GroupVersionKind(), scope=scope
                    )
                    result.append(parent)
                parent.subresources.append(
                    v2.APISubresourceDiscovery(
                        subresource=item.name.partition("/")[2], response_kind=kind, verbs=item.verbs
                    )
                )
    return result


def _check_content_type(request: Request, offer: Offer) -> None:
    """Raise UnsupportedMediaType if a request says that it has a body which its route would not take."""
    said = request.headers.get("content-type", "")
    if said and not any(part.partition(";")[0].strip() in ("*/*", *offer.media_types) for part in said.split(",")):
        raise UnsupportedMediaType("415: Unsupported Media Type", meta.StatusDetails())


def _entity_tag(data: bytes) -> str:
    """Return the tag of a document in whatever form: it is that of its JSON without kind and version, as upstream's."""
    kind, version = _AGGREGATED
    bare = data.replace(b'"kind":"%b","apiVersion":"%b",' % (kind.encode(), version.encode()), b"", 1)
    return f'"{hashlib.sha512(bare).hexdigest().upper()}"'


def _as(data: bytes, form: Answer) -> bytes:
    if form.media_type == YAML:
        return yaml.write(data)
    if form.media_type == PROTOBUF:
        tree: Mapping[str, Any] = serialization.decode_tree(data)
        if form.kind:
            return encode_group_discovery(tree)
        kind = tree["kind"]
        return protobuf.envelope(protobuf.encode_message(dict(tree), "v1", kind), tree.get("apiVersion", ""), kind)
    return msgspec.json.format(data, indent=2) if form.pretty else data + b"\n"
