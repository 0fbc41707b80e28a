"""The connect subresources: which handler answers pods/exec, attach, portforward, log, proxy and their kin."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.apimachinery.codecs.negotiate import RESOURCES, Offer, check_route, negotiate
from haven.apimachinery.goformat import quote as go_quote
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CONNECT, AdmissionRequest, Objects
from haven.apiserver.http.takeover import Connection
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.request import Request, Response
from haven.apiserver.streaming import channels, location, portforward, remotecommand
from haven.apiserver.streaming.httpproxy import HttpProxy
from haven.apiserver.streaming.meter import StreamMeter
from haven.apiserver.streaming.remotecommand import Streams
from haven.apiserver.streaming.session import Session
from haven.client.upgrade import Backend, Refused, Upgraded, upgrade
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web
else:
    aiohttp = deferred("aiohttp")
    web = deferred("aiohttp.web")

__all__ = ["NodeBackends", "Streaming"]

_PODS, _NODES, _SERVICES = resource_of(core.Pod), resource_of(core.Node), resource_of(core.Service)
_ENDPOINTS = resource_of(core.Endpoints)
_VERBS = ("get", "create", "update", "patch", "delete")
Handler = Callable[[Request, Endpoint], Any]


@dataclass(frozen=True)
class NodeBackends:
    """How to reach kubelets: their address comes from the Node, in this order of kinds.

    `tls` shows who we are; None trusts the system's authorities and shows nothing.
    """

    tls: ssl.SSLContext | None = None
    address_types: tuple[str, ...] = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")
    overrides: Mapping[str, str] | None = None  # Node name -> address, for nodes on this machine.

    def of(self, node: core.Node) -> Backend:
        """Return where a node's kubelet listens."""
        port = node.status.daemon_endpoints.kubelet_endpoint.port or 10250
        tls = self.tls or _system_trust()
        override = (self.overrides or {}).get(node.metadata.name)
        if override:
            return Backend(override, port, tls)
        for wanted in self.address_types:
            for item in node.status.addresses:
                if item.type == wanted:
                    return Backend(item.address, port, tls)
        known = " ".join(f"{{{item.type} {item.address}}}" for item in node.status.addresses)
        raise apierrors.ApiError(f"no preferred addresses found; known addresses: [{known}]")


@cache
def _system_trust() -> ssl.SSLContext:
    """Return the trust in the system's authorities, which are many: they are read when somebody wants them."""
    return ssl.create_default_context()


_LOGS = Offer(("text/plain", *RESOURCES.media_types))
_LOG_OBJECTS = replace(RESOURCES, tables=False)


class _NoObject(apierrors.ApiError):
    """The metadata of a log is asked for; upstream fails without a reason."""

    code, reason = 500, ""


class Streaming:
    """Answers requests that go on to nodes, Pods and Services."""

    def __init__(
        self, objects: Objects, admission: AdmissionChain, nodes: NodeBackends, meter: StreamMeter | None = None
    ) -> None:
        self._objects = objects
        self._admission = admission
        self._nodes = nodes
        self._meter = meter or StreamMeter(None)
        self._proxy = HttpProxy()
        self._logs: aiohttp.ClientSession | None = None
        self._turn = 0  # Endpoints of a proxied Service are taken in turn.
        self._insecure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Believes everybody, so it needs no authorities.
        self._insecure.check_hostname = False
        self._insecure.verify_mode = ssl.CERT_NONE

    def handlers(self) -> dict[tuple[str, str, str], dict[str, Handler]]:
        """Return the handlers by (group, resource, subresource) and verb."""
        return {
            ("", "pods", "exec"): {"get": self._exec, "create": self._exec},
            ("", "pods", "attach"): {"get": self._attach, "create": self._attach},
            ("", "pods", "portforward"): {"get": self._portforward, "create": self._portforward},
            ("", "pods", "log"): {"get": self._log},
            ("", "pods", "proxy"): dict.fromkeys(_VERBS, self._proxy_pod),
            ("", "services", "proxy"): dict.fromkeys(_VERBS, self._proxy_service),
            ("", "nodes", "proxy"): dict.fromkeys(_VERBS, self._proxy_node),
        }

    async def close(self) -> None:
        await self._proxy.close()
        if self._logs is not None:
            await self._logs.close()

    # Pods on nodes

    def _pod(self, request: Request) -> core.Pod:
        info = request.info
        pod = self._objects.get(_PODS, info.namespace, info.name)
        if pod is None:
            raise apierrors.NotFound.of(_PODS.group_resource, info.name)
        return pod

    def _kubelet(self, pod: core.Pod) -> Backend:
        name = pod.spec.node_name
        if not name:
            raise apierrors.BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        node = self._objects.get(_NODES, "", name)
        if node is None:
            raise apierrors.NotFound.of(_PODS.group_resource, name)  # Upstream calls it a pod here.
        return self._nodes.of(node)

    async def _admit(self, request: Request, endpoint: Endpoint, options: Any) -> None:
        info = request.info
        attributes = AdmissionRequest(
            operation=CONNECT,
            resource=endpoint.resource,
            subresource=info.subresource,
            namespace=info.namespace,
            name=info.name,
            user=request.user,
            object=options,
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
        )
        await self._admission.admit(attributes)
        await self._admission.validate(attributes)

    async def _exec(self, request: Request, endpoint: Endpoint) -> Response:
        pod = self._pod(request)
        await self._admit(request, endpoint, location.exec_options(request.query))
        container = location.default_container(pod, request.get("container"))
        return await self._remote(request, pod, f"/exec/{_place(pod)}/{quote(container)}", command=True)

    async def _attach(self, request: Request, endpoint: Endpoint) -> Response:
        pod = self._pod(request)
        await self._admit(request, endpoint, location.attach_options(request.query))
        container = location.default_container(pod, request.get("container"))
        return await self._remote(request, pod, f"/attach/{_place(pod)}/{quote(container)}", command=False)

    async def _remote(self, request: Request, pod: core.Pod, path: str, *, command: bool) -> Response:
        backend = self._kubelet(pod)
        if not _is_websocket(request):
            _require_upgrade(request)
        target = f"{path}?{location.exec_query(request.query, command=command)}"
        if _is_websocket(request):
            return self._remote_websocket(request, backend, target)
        return await _pass_spdy(request, backend, target)

    def _remote_websocket(self, request: Request, backend: Backend, target: str) -> Response:
        stdin, tty = location.flag(request.query, "stdin"), location.flag(request.query, "tty")
        streams = Streams(
            stdin=stdin,
            stdout=location.flag(request.query, "stdout") if "stdout" in request.query else True,
            stderr=(location.flag(request.query, "stderr") if "stderr" in request.query else True) and not tty,
            tty=tty,
        )
        connection = cast("Connection", request.connection)
        self._meter.websocket(request.info.subresource)

        async def hijack() -> None:
            socket = web.WebSocketResponse(protocols=channels.PROTOCOLS, max_msg_size=0, autoping=True)
            await socket.prepare(connection.raw)
            connection.response = socket
            try:
                answer = await _dial_spdy(backend, target, "v4.channel.k8s.io")
            except apierrors.ApiError as error:
                self._meter.translated(error.code)
                protocol = channels.protocol_of(socket.ws_protocol)
                message = protocol.write(channels.ERROR, remotecommand.failure(error))
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                await socket.close()
                return
            await remotecommand.relay(socket, Session(answer), streams)
            self._meter.translated(200)

        return Response(101, hijack=hijack)

    async def _portforward(self, request: Request, endpoint: Endpoint) -> Response:
        ports = _ports(request)
        pod = self._pod(request)
        await self._admit(request, endpoint, core.PodPortForwardOptions(ports=ports))
        backend = self._kubelet(pod)
        target = f"/portForward/{_place(pod)}"
        if not _is_websocket(request):
            _require_upgrade(request)
            return await _pass_spdy(request, backend, target)
        offered = request.headers.get("sec-websocket-protocol", "")
        tunnelled = portforward.TUNNEL_PROTOCOL in offered
        if not tunnelled and not ports:
            raise apierrors.BadRequest('query parameter "port" is required')
        if 0 in ports:
            raise apierrors.BadRequest('port "0" must be > 0 and < 65536')
        self._meter.websocket("portforward")
        if tunnelled:
            with self._meter.tunnelling():
                answer = await _dial_spdy(backend, target, "portforward.k8s.io")
        else:
            answer = await _dial_spdy(
                backend, f"{target}?{urlencode([('port', p) for p in ports])}", "portforward.k8s.io"
            )
        connection = cast("Connection", request.connection)

        async def hijack() -> None:
            protocols = (portforward.TUNNEL_PROTOCOL,) if tunnelled else portforward.CHANNEL_PROTOCOLS
            socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0)
            await socket.prepare(connection.raw)
            connection.response = socket
            if tunnelled:
                await portforward.tunnel(socket, answer)
            else:
                await portforward.relay_channels(socket, Session(answer), ports)

        return Response(101, hijack=hijack)

    async def _log(self, request: Request, endpoint: Endpoint) -> Response:
        accept = request.headers.get("accept", "")
        check_route(accept, _LOGS)  # A log is text whatever is accepted, and refused as an object would be.
        kind = negotiate(accept, _LOG_OBJECTS).kind
        if kind.endswith("List"):
            text = f"you requested {kind}, but the requested object is not a list (*rest.LocationStreamer)"
            raise apierrors.NotAcceptable(text)
        if kind:
            raise _NoObject("object does not implement the Object interfaces")
        insecure = location.flag(request.query, "insecureSkipTLSVerifyBackend")
        self._meter.log(insecure=insecure)
        options = location.log_options(request.info.name, request.query)
        pod = self._pod(request)
        container = location.choose_container(pod, request.get("container"))
        if not pod.spec.node_name:
            return Response(204)
        backend = self._kubelet(pod)
        tls = self._insecure if insecure else backend.tls
        url = f"https://{backend.authority}/containerLogs/{_place(pod)}/{quote(container)}?{urlencode(options)}"
        if self._logs is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._logs = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        try:
            answer = await self._logs.get(url, ssl=tls or False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                self._meter.log_not_trusted()
            raise apierrors.InternalError(f'Get "{url}": {error}') from error
        if answer.status != 200:
            body = await answer.read()
            raise _log_error(answer.status, body, pod)
        if _is_websocket(request):
            return _log_socket(request, answer)
        return Response(200, {"Content-Type": "text/plain"}, stream=_chunks(answer))

    # Proxies

    async def _proxy_pod(self, request: Request, endpoint: Endpoint) -> Response:
        target = location.split_target(request.info.name, "pod")
        pod = self._objects.get(_PODS, request.info.namespace, target.name)
        if pod is None:
            raise apierrors.NotFound.of(_PODS.group_resource, target.name)
        await self._admit(request, endpoint, core.PodProxyOptions(path=_proxied_path(request)))
        if not pod.status.pod_ip:
            raise apierrors.BadRequest("address not allowed")
        location.refuse_local_address(pod.status.pod_ip)
        port = location.proxy_target(pod, target.port)
        backend = Backend(pod.status.pod_ip, port, self._insecure if target.scheme == "https" else None)
        return await self._forward(request, backend)

    async def _proxy_service(self, request: Request, endpoint: Endpoint) -> Response:
        namespace, target = request.info.namespace, location.split_target(request.info.name, "service")
        await self._admit(request, endpoint, core.ServiceProxyOptions(path=_proxied_path(request)))
        port_name = target.port
        if port_name.isascii() and port_name.isdigit():
            service = self._objects.get(_SERVICES, namespace, target.name)
            if service is None:
                raise apierrors.NotFound.of(_SERVICES.group_resource, target.name)
            port_name = location.named_port(service, int(port_name))
        found = self._objects.get(_ENDPOINTS, namespace, target.name)
        if found is None:
            raise apierrors.NotFound.of(_SERVICES.group_resource, target.name)
        if not found.subsets:
            raise apierrors.ServiceUnavailable(f"no endpoints available for service {go_quote(target.name)}")

        def addresses_of(name: str) -> list[str]:
            pod = self._objects.get(_PODS, namespace, name)
            return [] if pod is None else [one.ip for one in pod.status.pod_ips]

        endpoints = location.pod_addresses(found, port_name, addresses_of)
        if not endpoints:
            raise apierrors.ServiceUnavailable(f"no endpoints available for service {go_quote(request.info.name)}")
        self._turn += 1
        address, port = endpoints[self._turn % len(endpoints)]
        backend = Backend(address, port, self._insecure if target.scheme == "https" else None)
        return await self._forward(request, backend)

    async def _proxy_node(self, request: Request, endpoint: Endpoint) -> Response:
        target = location.split_target(request.info.name, "node")
        node = self._objects.get(_NODES, "", target.name)
        if node is None:
            raise apierrors.NotFound.of(_NODES.group_resource, target.name)
        await self._admit(request, endpoint, core.NodeProxyOptions(path=_proxied_path(request)))
        backend = self._nodes.of(node)
        if target.port:
            port = location.port_number(target.port)
            tls = backend.tls if port == backend.port else (self._insecure if target.scheme == "https" else None)
            backend = Backend(backend.host, port, tls)
        return await self._forward(request, backend)

    async def _forward(self, request: Request, backend: Backend) -> Response:
        connection = cast("Connection | None", request.connection)
        raw = request.uri.partition("?")[0] if connection is not None else request.path
        prefix, rest = location.split_proxy_path(raw, is_namespaced=bool(request.info.namespace))
        upgrades = "upgrade" in request.headers.get("connection", "").lower()
        if raw == prefix and request.method in ("GET", "HEAD") and not upgrades:
            # Links of the page would lead beside the proxy otherwise.
            query = f"?{request.uri.partition('?')[2]}" if connection and request.query else ""
            return Response(301, {"Location": f"{prefix}/{query}"})
        return await self._proxy.pass_on(request, backend, rest, prefix=prefix)


def _place(pod: core.Pod) -> str:
    return f"{quote(pod.metadata.namespace)}/{quote(pod.metadata.name)}"


def _ports(request: Request) -> list[int]:
    ports: list[int] = []
    for text in request.query.get("ports", ()):
        is_number = text.isascii() and text.isdigit()
        if not is_number or int(text) > 65535:
            because = "value out of range" if is_number else "invalid syntax"
            raise apierrors.BadRequest(
                f"cannot convert to []int32: strconv.ParseUint: parsing {go_quote(text)}: {because}"
            )
        ports.append(int(text))
    return ports


def _proxied_path(request: Request) -> str:
    _, rest = location.split_proxy_path(request.path, is_namespaced=bool(request.info.namespace))
    return rest if rest != "/" or request.path.endswith("/") else ""


def _is_websocket(request: Request) -> bool:
    headers = request.headers
    return headers.get("upgrade", "").lower() == "websocket" and "upgrade" in headers.get("connection", "").lower()


def _require_upgrade(request: Request) -> None:
    if "upgrade" not in request.headers.get("connection", "").lower():
        raise apierrors.BadRequest("Upgrade request required")


async def _pass_spdy(request: Request, backend: Backend, target: str) -> Response:
    """Pass a SPDY client's connection on as it is; only the address changes."""
    path, _, query = target.partition("?")
    headers = {
        name: value
        for name, value in request.headers.items()
        if name not in ("host", "content-length", "authorization")
    }
    connection = cast("Connection", request.connection)
    answer = await upgrade(backend, request.method, f"{path}?{query}" if query else path, headers)
    if isinstance(answer, Refused):
        return Response(answer.status, {"Content-Type": answer.headers.get("content-type", "text/plain")}, answer.body)
    agreed: Upgraded = answer

    async def hijack() -> None:
        from haven.client.upgrade import splice

        client = connection.transport
        client.write(agreed.head)
        await splice(client, agreed.transport, agreed.early)

    return Response(101, hijack=hijack)


async def _dial_spdy(backend: Backend, target: str, protocol: str) -> Upgraded:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": protocol}
    answer = await upgrade(backend, "POST", target, headers)
    if isinstance(answer, Refused):
        raise apierrors.from_status(answer.status, answer.body or b"unable to upgrade connection")
    return answer


def _log_error(status: int, body: bytes, pod: core.Pod) -> apierrors.ApiError:
    text = body.decode(errors="replace").strip()
    if status == 400:
        return apierrors.BadRequest(text)
    if status == 404:
        return apierrors.NotFound(f"the server could not find the requested resource ( pods/log {pod.metadata.name})")
    return apierrors.InternalError(text or f"the node answered {status}")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError as error:
        raise ConnectionResetError("the node broke off") from error
    finally:
        answer.close()


def _log_socket(request: Request, answer: aiohttp.ClientResponse) -> Response:
    """Send a log in messages, for clients that ask for it over a WebSocket."""
    connection = cast("Connection", request.connection)

    async def hijack() -> None:
        socket = web.WebSocketResponse(protocols=("binary.k8s.io", "base64.binary.k8s.io"))
        await socket.prepare(connection.raw)
        connection.response = socket
        reading = asyncio.create_task(socket.receive())  # Only to learn that the client left.
        try:
            async for chunk in answer.content.iter_any():
                if reading.done():
                    return
                if socket.ws_protocol == "base64.binary.k8s.io":
                    import base64

                    await socket.send_str(base64.b64encode(chunk).decode())
                else:
                    await socket.send_bytes(chunk)
        finally:
            reading.cancel()
            answer.close()
            await socket.close()

    return Response(101, hijack=hijack)
