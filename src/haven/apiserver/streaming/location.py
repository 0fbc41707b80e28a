"""Where a streaming request goes: the checks and the address, without any connection.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (log, exec, attach, proxy)
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from haven.api.core import v1 as core
from haven.apimachinery import apierrors
from haven.apimachinery.apierrors import GroupKind
from haven.apimachinery.fielderrors import ErrorList, FieldError, Path, forbidden, invalid
from haven.apimachinery.goformat import quote
from haven.apimachinery.gonumbers import NotANumber, parse_int
from haven.apimachinery.schema.goscalars import BadScalar, parse_time

__all__ = [
    "LogOptions",
    "ProxyTarget",
    "attach_options",
    "choose_container",
    "exec_options",
    "exec_query",
    "flag",
    "is_proxy_target",
    "log_options",
    "proxy_target",
]


_PROXY_TARGET = re.compile(r"/api/v1/(?:namespaces/[^/?]+/(?:pods|services)|nodes)/[^/?]+/proxy(?:[/?]|$)")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """A log request, checked."""

    container: str
    query: str
    follow: bool
    previous: bool


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """A name such as https:web:8443, taken apart; `port` is "" when none was named."""

    scheme: str
    name: str
    port: str


def flag(query: Mapping[str, Sequence[str]], name: str) -> bool:
    """Return a boolean parameter as upstream reads one: present and not false or 0."""
    values = query.get(name)
    return bool(values) and values is not None and values[0].lower() not in ("false", "0")


def is_proxy_target(target: str) -> bool:
    """Whether a request's target leads through a proxy: what is sent there is none of the server's business."""
    return _PROXY_TARGET.match(target) is not None


def split_proxy_path(path: str, *, is_namespaced: bool) -> tuple[str, str]:
    """Return the path of the proxy itself and what comes after it, by position: a namespace may be called proxy-1."""
    parts = path.split("/")
    length = 8 if is_namespaced else 6  # /api/v1/namespaces/NS/pods/NAME/proxy and /api/v1/nodes/NAME/proxy
    rest = "/".join(parts[length:])
    return "/".join(parts[:length]), f"/{rest}"


def choose_container(pod: core.Pod, wanted: str) -> str:
    """Return the container's name, the only one if none was asked for; raise BadRequest."""
    spec = pod.spec
    names = [c.name for c in (*spec.init_containers, *spec.containers)]
    names += [c.name for c in spec.ephemeral_containers]
    if wanted:
        if wanted not in names:
            raise apierrors.BadRequest(f"container {wanted} is not valid for pod {pod.metadata.name}")
        return wanted
    if len(spec.containers) == 1:
        return spec.containers[0].name
    raise apierrors.BadRequest(
        f"a container name must be specified for pod {pod.metadata.name}, choose one of: [{' '.join(names)}]"
    )


def default_container(pod: core.Pod, wanted: str) -> str:
    """Return the container for exec and attach: the annotated default comes first."""
    annotated = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container", "")
    if not wanted and any(c.name == annotated for c in pod.spec.containers):
        return annotated
    return choose_container(pod, wanted)


def log_options(pod_name: str, query: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return what is passed on to the node; raise Invalid with upstream's causes."""
    errors: ErrorList = []
    options: dict[str, str] = {}
    for name in ("follow", "previous", "timestamps"):
        if flag(query, name):
            options[name] = "true"
    numbers = {"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1}
    for name, least in numbers.items():
        text = query.get(name, [""])[0]
        if not text:
            continue
        try:
            number = parse_int(text)
        except NotANumber as error:
            raise apierrors.BadRequest(str(error)) from None
        if number < least:
            errors.append(_too_small(name, number, least))
        options[name] = str(number)
    since = query.get("sinceTime", [""])[0]
    if since:
        try:
            options["sinceTime"] = parse_time(since)
        except BadScalar as error:
            raise apierrors.BadRequest(str(error)) from None
    if "sinceSeconds" in options and since:
        errors.append(forbidden(Path(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if "stream" in query:  # Its feature gate, PodLogsQuerySplitStreams, is off.
        errors.append(forbidden(Path("stream"), "may not be specified"))
    if errors:
        raise apierrors.Invalid.of(GroupKind("", "PodLogOptions"), pod_name, errors)
    return options


def _too_small(name: str, number: int, least: int) -> FieldError:
    text = "must be greater than or equal to 0" if least == 0 else "must be greater than 0"
    return invalid(Path(name), number, text)


def exec_options(query: Mapping[str, Sequence[str]]) -> core.PodExecOptions:
    """Return what an exec request asks for, as admission sees it."""
    return core.PodExecOptions(
        stdin=flag(query, "stdin"),
        stdout=flag(query, "stdout"),
        stderr=flag(query, "stderr"),
        tty=flag(query, "tty"),
        container=query.get("container", [""])[0],
        command=list(query.get("command", ())),
    )


def attach_options(query: Mapping[str, Sequence[str]]) -> core.PodAttachOptions:
    """Return what an attach request asks for, as admission sees it."""
    return core.PodAttachOptions(
        stdin=flag(query, "stdin"),
        stdout=flag(query, "stdout"),
        stderr=flag(query, "stderr"),
        tty=flag(query, "tty"),
        container=query.get("container", [""])[0],
    )


def exec_query(query: Mapping[str, Sequence[str]], *, command: bool) -> str:
    """Return the kubelet's form of an exec or attach request's options; raise BadRequest if they contradict."""
    stdin, tty = flag(query, "stdin"), flag(query, "tty")
    stdout = flag(query, "stdout") if "stdout" in query else True
    stderr = flag(query, "stderr") if "stderr" in query else True
    if tty:
        stderr = False
    if not stdin and not stdout and not stderr:
        raise apierrors.BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    pairs = [(name, "1") for name, on in (("input", stdin), ("output", stdout), ("error", stderr), ("tty", tty)) if on]
    if command:
        words = query.get("command", [])
        if not words:
            raise apierrors.BadRequest("you must specify at least one command for the container")
        pairs += [("command", word) for word in words]
    return urlencode(pairs)


def split_target(text: str, kind: str) -> ProxyTarget:
    """Read scheme:name:port, name:port or name; raise BadRequest, which names the kind of the object."""
    parts = text.split(":")
    match parts:
        case [name] if name:
            return ProxyTarget("", name, "")
        case [name, port] if name:
            return ProxyTarget("", name, port)
        case [scheme, name, port] if name and scheme in ("http", "https", ""):
            return ProxyTarget(scheme, name, port)
    raise apierrors.BadRequest(f"invalid {kind} request {quote(text)}")


def proxy_target(pod: core.Pod, port: str) -> int:
    """Return the port of a Pod to proxy to: the named one, a number, or the first that a container declares."""
    if port:
        for container in pod.spec.containers:
            for item in container.ports:
                if item.name == port:
                    return item.container_port
        return port_number(port)
    for container in pod.spec.containers:
        if container.ports:
            return container.ports[0].container_port
    return 80


def port_number(port: str) -> int:
    """Return a port given as text; raise ServiceUnavailable if there is no such port."""
    if not (port.isascii() and port.isdigit()):
        raise apierrors.ServiceUnavailable(f"error trying to reach service: dial tcp: lookup tcp/{port}: unknown port")
    if int(port) > 65535:
        raise apierrors.ServiceUnavailable(f"error trying to reach service: dial tcp: address {port}: invalid port")
    return int(port)


def named_port(service: core.Service, number: int) -> str:
    """Return the name of a Service's port; raise ServiceUnavailable if it has none of that number."""
    for port in service.spec.ports:
        if port.port == number:
            return port.name
    name = quote(service.metadata.name)
    raise apierrors.ServiceUnavailable(f"no service port {number} found for service {name}")


def pod_addresses(
    endpoints: core.Endpoints, port_name: str, addresses_of: Callable[[str], Collection[str]]
) -> list[tuple[str, int]]:
    """Return where a port of a Service is served by Pods: others are never proxied to.

    `addresses_of` tells the addresses of a Pod of the Service's namespace, by name.
    """
    return [
        (address.ip, port.port)
        for subset in endpoints.subsets
        for port in subset.ports
        if port.name == port_name
        for address in subset.addresses
        if address.target_ref is not None
        and address.target_ref.namespace == endpoints.metadata.namespace
        and address.ip in addresses_of(address.target_ref.name)
    ]


def refuse_local_address(address: str) -> None:
    """Refuse to proxy to addresses that only mean something on this machine."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        raise apierrors.BadRequest("address not allowed")
