"""Every path and operation of the API, without the notation of a version of OpenAPI.

Names and parameters follow from the table of resources as they do in upstream's endpoint installer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from haven.api.scheme import GroupVersionKind, Resource, Subresource
from haven.apimachinery import facts

__all__ = [
    "APPLY_TYPES",
    "MEDIA_TYPES",
    "META",
    "PARAMETERS",
    "WATCH_TYPES",
    "Operation",
    "Parameter",
    "Path",
    "definition_of",
    "group_paths",
    "resource_paths",
    "root_paths",
    "version_path",
]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
MEDIA_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
WATCH_TYPES = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
APPLY_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_ANY = ("*/*",)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path or query. `type` is boolean, integer or string."""

    name: str
    place: str
    type: str
    description: str


def _query(name: str, type_: str, description: str) -> Parameter:
    return Parameter(name, "query", type_, description)


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        _query(
            "allowWatchBookmarks", "boolean", "Whether a watch may be sent bookmarks: events that tell how far it is."
        ),
        _query("command", "string", "The command to run, with its arguments; the parameter is repeated for each."),
        _query("container", "string", "The container; a pod with a single one needs no name."),
        _query("continue", "string", "Where the list goes on, as the last answer said."),
        _query("dryRun", "string", "All: go through every stage, but change nothing."),
        _query("fieldManager", "string", "Who makes this change; an apply must say so."),
        _query(
            "fieldValidation",
            "string",
            "What becomes of unknown and repeated fields: Strict refuses them, Warn (the default) tells of them.",
        ),
        _query("fieldSelector", "string", "Conditions on fields, such as metadata.name=a; all must be met."),
        _query("follow", "boolean", "Whether to go on with what is logged from now on."),
        _query("force", "boolean", "Whether an apply takes over fields that belong to others."),
        _query("gracePeriodSeconds", "integer", "How long the object may take to end; 0 deletes at once."),
        _query(
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "boolean",
            "Whether to delete an object that cannot be read any more, with all the risks.",
        ),
        _query("insecureSkipTLSVerifyBackend", "boolean", "Whether to trust the kubelet without a valid certificate."),
        _query(
            "labelSelector",
            "string",
            "Cuts the list of returned objects down to those with such labels (a=b,c in (d,e)).",
        ),
        _query("limit", "integer", "How many objects an answer holds at most; the rest is asked for with continue."),
        _query("limitBytes", "integer", "How many bytes of the log to send at most."),
        _query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
        _query("path", "string", "The path below the proxied object."),
        _query("ports", "integer", "The ports to forward."),
        _query("pretty", "string", "Whether JSON comes with line breaks."),
        _query("previous", "boolean", "Whether to read the log of the container's last run before this one."),
        _query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
        _query("resourceVersion", "string", "The revision that the answer must be at, or not older than."),
        _query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
        _query("sendInitialEvents", "boolean", "Whether a watch begins with the objects that exist, then a bookmark."),
        _query("shardSelector", "string", "The share of the objects that is wanted."),
        _query("sinceSeconds", "integer", "How far back the log begins."),
        _query("stderr", "boolean", "Whether the standard error stream is wanted."),
        _query("stdin", "boolean", "Whether standard input is sent."),
        _query("stdout", "boolean", "Whether the standard output stream is wanted."),
        _query("stream", "string", "Which stream of the log: All, Stdout or Stderr."),
        _query("tailLines", "integer", "How many lines from the end of the log."),
        _query("timeoutSeconds", "integer", "How long a list or watch may last."),
        _query("timestamps", "boolean", "Whether each line of the log begins with its time."),
        _query("tty", "boolean", "Whether the streams belong to a terminal."),
        _query("watch", "boolean", "Watch for changes to the described resources instead of listing them."),
        Parameter("namespace", "path", "string", "object name and auth scope, such as for teams and projects"),
    )
}

_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "shardSelector", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = (
    "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents",
    "propagationPolicy",
)  # fmt: skip
_DELETE_COLLECTION = tuple(
    sorted({*_LIST, *_DELETE} - {"allowWatchBookmarks", "watch"}),
)
_CONNECT = {
    "PodAttachOptions": ("container", "stderr", "stdin", "stdout", "tty"),
    "PodExecOptions": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "PodPortForwardOptions": ("ports",),
    "PodProxyOptions": ("path",),
    "ServiceProxyOptions": ("path",),
    "NodeProxyOptions": ("path",),
}
_LOG = (
    "container", "follow", "insecureSkipTLSVerifyBackend", "limitBytes", "previous", "sinceSeconds", "stream",
    "tailLines", "timestamps",
)  # fmt: skip
_FOREIGN = {
    "Eviction": ("policy", "v1"), "Scale": ("autoscaling", "v1"), "TokenRequest": ("authentication.k8s.io", "v1"),
}  # fmt: skip
_PROXY_METHODS = ("delete", "get", "head", "options", "patch", "post", "put")

# Kinds whose deletion answers with the object instead of a Status.
_RETURNED = frozenset(
    {
        ("", "PersistentVolume"), ("", "PersistentVolumeClaim"), ("", "Pod"), ("", "PodTemplate"),
        ("", "ResourceQuota"), ("", "Service"), ("", "ServiceAccount"), ("resource.k8s.io", "DeviceClass"),
        ("resource.k8s.io", "DeviceTaintRule"), ("resource.k8s.io", "ResourceClaim"),
        ("resource.k8s.io", "ResourceClaimTemplate"), ("resource.k8s.io", "ResourceSlice"),
        ("resource.k8s.io", "ResourcePoolStatusRequest"),
        ("storage.k8s.io", "CSIDriver"), ("storage.k8s.io", "CSINode"), ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "VolumeAttachment"), ("storage.k8s.io", "VolumeAttributesClass"),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a path. `body` and `answer` are definitions; an answer "" is plain text."""

    method: str
    id: str
    description: str
    tag: str
    answer: str
    codes: tuple[int, ...] = (200,)
    action: str = ""
    gvk: GroupVersionKind | None = None
    parameters: tuple[str, ...] = ()
    body: str = ""
    body_required: bool = True
    consumes: tuple[str, ...] = _ANY
    produces: tuple[str, ...] = MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class Path:
    """A path and its operations. `subject` is the kind whose name {name} is; `rest` tells that {path} follows."""

    path: str
    operations: tuple[Operation, ...]
    subject: str = ""
    namespaced: bool = False
    rest: bool = False


def definition_of(gvk: GroupVersionKind) -> str:
    """Return the name of a kind's definition; a custom kind's is its group backwards, its version and its name."""
    found = facts.kinds().get(f"{gvk.group}/{gvk.version}/{gvk.kind}")
    return found or ".".join([*reversed(gvk.group.split(".")), gvk.version, gvk.kind])


def _camel(group: str) -> str:
    """Return a group as operations are named after it: rbac.authorization.k8s.io is RbacAuthorization."""
    parts = group.removesuffix(".k8s.io").split(".") if group else ["core"]
    return "".join(part[:1].upper() + part[1:] for part in parts)


def _tag(group: str, version: str = "") -> str:
    name = _camel(group)
    name = name[:1].lower() + name[1:]
    return f"{name}_{version}" if version else name


def _article(kind: str) -> str:
    if kind.endswith("s") and not kind.endswith("ss"):
        return kind  # A plural, such as Endpoints.
    return f"an {kind}" if kind[:1] in "AEIOU" else f"a {kind}"


class _Maker:
    """Makes the operations of one resource."""

    media_types: tuple[str, ...] = MEDIA_TYPES
    watch_types: tuple[str, ...] = WATCH_TYPES
    patch_types: tuple[str, ...] = APPLY_TYPES
    patch_codes: tuple[int, ...] = (200, 201)
    consumes: tuple[str, ...] = _ANY
    read_parameters: tuple[str, ...] = ("pretty",)

    def __init__(self, resource: Resource[Any], list_kind: str = "") -> None:
        self.resource = resource
        self.base = _camel(resource.group) + resource.version[:1].upper() + resource.version[1:]
        self.scope = "Namespaced" if resource.namespaced else ""
        self.kind = resource.kind
        self.definition = definition_of(resource.gvk)
        self.list_definition = definition_of(resource.gvk._replace(kind=list_kind or resource.kind + "List"))

    def operation(self, method: str, verb: str, description: str, answer: str, **rest: Any) -> Operation:
        """Return an operation named verb + group and version + scope + kind + suffix."""
        suffix, scope = rest.pop("suffix", ""), rest.pop("scope", self.scope)
        kind = rest.pop("named", self.kind)
        rest.setdefault("gvk", self.resource.gvk)
        rest.setdefault("produces", self.media_types)
        rest.setdefault("consumes", self.consumes)
        return Operation(
            method,
            f"{verb}{self.base}{scope}{kind}{suffix}",
            description,
            _tag(self.resource.group, self.resource.version),
            answer,
            **rest,
        )

    def list(self, *, everywhere: bool = False) -> Operation:
        verb = "list or watch" if "watch" in self.resource.verbs else "list"
        return self.operation(
            "get", "list", f"{verb} objects of kind {self.kind}", self.list_definition, action="list",
            parameters=("pretty", *_LIST), produces=(*self.media_types, *self.watch_types),
            **_everywhere(everywhere),
        )  # fmt: skip

    def watch_list(self, *, everywhere: bool = False) -> Operation:
        description = (
            f"watch individual changes to a list of {self.kind}. "
            "deprecated: use the 'watch' parameter with a list operation instead."
        )
        rest = _everywhere(everywhere)
        rest["suffix"] = "List" + rest.get("suffix", "")
        return self._watch(description, "watchlist", rest)

    def watch(self) -> Operation:
        description = (
            f"watch changes to an object of kind {self.kind}. deprecated: use the 'watch' parameter with a list "
            "operation instead, filtered to a single item with the 'fieldSelector' parameter."
        )
        return self._watch(description, "watch", {})

    def _watch(self, description: str, action: str, rest: dict[str, Any]) -> Operation:
        return self.operation(
            "get", "watch", description, META + "WatchEvent", action=action, parameters=("pretty", *_LIST),
            produces=(*self.media_types, *self.watch_types), **rest,
        )  # fmt: skip

    def delete_collection(self) -> Operation:
        return self.operation(
            "delete", "delete", f"delete collection of {self.kind}", META + "Status", action="deletecollection",
            parameters=("pretty", *_DELETE_COLLECTION), body=META + "DeleteOptions", body_required=False,
            scope=f"Collection{self.scope}",
        )  # fmt: skip

    def delete(self) -> Operation:
        returned = (self.resource.group, self.kind) in _RETURNED
        return self.operation(
            "delete", "delete", f"delete {_article(self.kind)}", self.definition if returned else META + "Status",
            action="delete", codes=(200, 202), parameters=("pretty", *_DELETE), body=META + "DeleteOptions",
            body_required=False,
        )  # fmt: skip

    def write(self, method: str, subresource: Subresource | None = None) -> Operation:
        """Return a post, put or patch of the resource or of a subresource."""
        verb, phrase, codes = {
            "post": ("create", "create", (200, 201, 202)),
            "put": ("replace", "replace", (200, 201)),
            "patch": ("patch", "partially update", self.patch_codes),
        }[method]
        definition = self.definition_of(subresource)
        of = "" if subresource is None else f"{subresource.name} of "
        subject = f"{of}{_article(self.kind)}" if method == "post" else f"{of}the specified {self.kind}"
        rest: dict[str, Any] = {"consumes": self.patch_types} if method == "patch" else {}
        force = ("force",) if method == "patch" else ()
        return self.operation(
            method, verb, f"{phrase} {subject}", definition, action=method, gvk=self.gvk_of(subresource),
            codes=codes, parameters=("pretty", *_WRITE, *force), suffix=_suffix(subresource),
            body=META + "Patch" if method == "patch" else definition, **rest,
        )  # fmt: skip

    def read(self, subresource: Subresource | None = None) -> Operation:
        of = "" if subresource is None else f"{subresource.name} of "
        definition = self.definition_of(subresource)
        rest: dict[str, Any] = {"parameters": self.read_parameters}
        if subresource is not None and subresource.name == "log":
            definition = ""
            rest = {"parameters": ("pretty", *_LOG), "produces": ("text/plain", *self.media_types)}
        return self.operation(
            "get", "read", f"read {of}the specified {self.kind}", definition, action="get",
            gvk=self.gvk_of(subresource), suffix=_suffix(subresource), **rest,
        )  # fmt: skip

    def connect(self, method: str, subresource: Subresource, *, with_path: bool = False) -> Operation:
        return self.operation(
            method, "connect", f"connect {method.upper()} requests to {subresource.name} of {self.kind}", "",
            action="connect", gvk=self.gvk_of(subresource), parameters=_CONNECT[subresource.kind], produces=_ANY,
            scope=f"{method.title()}{self.scope}", suffix=_suffix(subresource) + ("WithPath" if with_path else ""),
        )  # fmt: skip

    def gvk_of(self, subresource: Subresource | None) -> GroupVersionKind:
        if subresource is None:
            return self.resource.gvk
        group, version = _FOREIGN.get(subresource.kind, (self.resource.group, self.resource.version))
        return GroupVersionKind(group, version, subresource.kind)

    def definition_of(self, subresource: Subresource | None) -> str:
        return self.definition if subresource is None else definition_of(_Maker.gvk_of(self, subresource))


class _CustomMaker(_Maker):
    """Makes the operations of a custom resource, of which upstream tells less and in its own way."""

    media_types = MEDIA_TYPES[:2]
    watch_types = ()
    patch_types = tuple(one for one in APPLY_TYPES if "strategic" not in one)
    patch_codes = (200,)
    consumes = MEDIA_TYPES[:2]
    read_parameters = ("pretty", "resourceVersion")

    def delete_collection(self) -> Operation:
        return replace(super().delete_collection(), parameters=("pretty", *_LIST), body="")

    def gvk_of(self, subresource: Subresource | None) -> GroupVersionKind:
        return self.resource.gvk


def _everywhere(everywhere: bool) -> dict[str, Any]:
    return {"suffix": "ForAllNamespaces", "scope": ""} if everywhere else {}


def _suffix(subresource: Subresource | None) -> str:
    return "" if subresource is None else subresource.name[:1].upper() + subresource.name[1:]


def resource_paths(resource: Resource[Any], *, custom: bool = False, list_kind: str = "") -> Iterator[Path]:
    """Yield the paths of a resource and its subresources."""
    maker = _CustomMaker(resource, list_kind) if custom else _Maker(resource)
    verbs = resource.verbs
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    inside = "/namespaces/{namespace}" if resource.namespaced else ""
    collection: list[Operation] = []
    if "deletecollection" in verbs:
        collection.append(maker.delete_collection())
    if "list" in verbs:
        collection.append(maker.list())
    if "create" in verbs:
        collection.append(maker.write("post"))
    item = [
        make
        for verb, make in (
            ("delete", maker.delete), ("get", maker.read), ("patch", lambda: maker.write("patch")),
            ("update", lambda: maker.write("put")),
        )
        if verb in verbs
    ]  # fmt: skip
    plural, kind, namespaced = resource.plural, resource.kind, resource.namespaced
    if namespaced and "list" in verbs:
        yield Path(f"{prefix}/{plural}", (maker.list(everywhere=True),))
    yield Path(f"{prefix}{inside}/{plural}", tuple(collection), namespaced=namespaced)
    if item:
        operations = tuple(make() for make in item)
        yield Path(f"{prefix}{inside}/{plural}/{{name}}", operations, kind, namespaced)
    for subresource in resource.subresources:
        yield from _subresource_paths(maker, f"{prefix}{inside}/{plural}/{{name}}/{subresource.name}", subresource)
    if "watch" in verbs and not custom:
        if namespaced:
            yield Path(f"{prefix}/watch/{plural}", (maker.watch_list(everywhere=True),))
        yield Path(f"{prefix}/watch{inside}/{plural}", (maker.watch_list(),), namespaced=namespaced)
        yield Path(f"{prefix}/watch{inside}/{plural}/{{name}}", (maker.watch(),), kind, namespaced)


def _subresource_paths(maker: _Maker, path: str, subresource: Subresource) -> Iterator[Path]:
    namespaced = maker.resource.namespaced
    if subresource.kind in _CONNECT:
        proxy = subresource.name == "proxy"
        methods = _PROXY_METHODS if proxy else ("get", "post")
        subject = subresource.kind
        yield Path(path, tuple(maker.connect(one, subresource) for one in methods), subject, namespaced)
        if proxy:
            operations = tuple(maker.connect(one, subresource, with_path=True) for one in methods)
            yield Path(path + "/{path}", operations, subject, namespaced, rest=True)
        return
    operations = tuple(
        maker.read(subresource) if method == "get" else maker.write(method, subresource)
        for verb, method in (("get", "get"), ("patch", "patch"), ("create", "post"), ("update", "put"))
        if verb in subresource.verbs
    )
    yield Path(path, operations, subresource.kind, namespaced)


def version_path(group: str, version: str) -> Path:
    """Return the path that lists a version's resources."""
    base = _camel(group) + version[:1].upper() + version[1:]
    path = f"/apis/{group}/{version}/" if group else f"/api/{version}/"
    return Path(
        path,
        (
            Operation(
                "get", f"get{base}APIResources", "get available resources", _tag(group, version),
                META + "APIResourceList", consumes=MEDIA_TYPES,
            ),
        ),
    )  # fmt: skip


def group_paths(groups: Iterable[str]) -> Iterator[Path]:
    """Yield the path of each group but the core one."""
    for group in groups:
        if group:
            yield Path(
                f"/apis/{group}/",
                (
                    Operation(
                        "get", f"get{_camel(group)}APIGroup", "get information of a group", _tag(group),
                        META + "APIGroup", consumes=MEDIA_TYPES,
                    ),
                ),
            )  # fmt: skip


def root_paths() -> list[Path]:
    """Return the paths that belong to no group."""
    version = "io.k8s.apimachinery.pkg.version.Info"
    json_only = MEDIA_TYPES[:1]
    listed = (
        ("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration",
         "get service account issuer OpenID configuration", "WellKnown", "", (), json_only),
        ("/api/", "getCoreAPIVersions", "get available API versions", "core", META + "APIVersions", MEDIA_TYPES,
         MEDIA_TYPES),
        ("/apis/", "getAPIVersions", "get available API versions", "apis", META + "APIGroupList", MEDIA_TYPES,
         MEDIA_TYPES),
        ("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset",
         "get service account issuer OpenID JSON Web Key Set", "openid", "", (), ("application/jwk-set+json",)),
        ("/version/", "getCodeVersion", "get the version information for this server", "version", version, json_only,
         json_only),
    )  # fmt: skip
    return [
        Path(path, (Operation("get", name, text, tag, answer, consumes=consumes, produces=produces),))
        for path, name, text, tag, answer, consumes, produces in listed
    ]
