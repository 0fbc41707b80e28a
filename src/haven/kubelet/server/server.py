"""The kubelet's HTTPS server. Streams of exec, attach and port-forward are passed to the runtime's own server as they
come: SPDY from end to end.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from haven import telemetry
from haven.api.core import v1 as core
from haven.apimachinery import apierrors, serialization, times
from haven.client import httpserver
from haven.client.upgrade import Backend, Refused, splice, upgrade
from haven.clock import Clock
from haven.cri.errors import RuntimeFailure
from haven.cri.interface import ContainerState, Runtime, SandboxState
from haven.kubelet.probes import ProbeCount, ProbeKind
from haven.kubelet.server.access import Access, refusal
from haven.kubelet.server.agentmetrics import agent_families, probe_families
from haven.kubelet.server.cadvisor import cadvisor_families
from haven.kubelet.server.configz import kubelet_configuration
from haven.kubelet.server.containers import NotThere, log_container_id, running_container_id
from haven.kubelet.server.exposition import CONTENT_TYPE, Family, render
from haven.kubelet.server.logfile import LogQuery, read_log
from haven.kubelet.server.resourcemetrics import resource_families
from haven.kubelet.server.summary import summary
from haven.kubelet.settings import Settings
from haven.kubelet.statistics import KubeletStatistics
from haven.kubelet.usage import NodeUsage

__all__ = ["KubeletServer", "PodSource", "ServerSettings"]

_log = telemetry.logger("kubelet")
DEVICE_LOOK_SECONDS = 3.0
_HEALTH_CHECKS = ("ping", "log", "syncloop")
POD_UID_LABEL = "io.kubernetes.pod.uid"


class PodSource(Protocol):
    """What the server must know of the node and its Pods."""

    @property
    def settings(self) -> Settings:
        """How the kubelet works."""
        ...

    def pods(self) -> Sequence[core.Pod]:
        """Return the Pods of this node with their newest status."""
        ...

    def find_pod(self, namespace: str, name: str) -> core.Pod | None:
        """Return one Pod with its newest status."""
        ...

    async def usage(self) -> NodeUsage:
        """Return what everything uses now; raises RuntimeFailure."""
        ...

    def statistics(self) -> KubeletStatistics:
        """Return what the agent counts."""
        ...

    def probe_counts(self) -> Mapping[tuple[str, str, ProbeKind], ProbeCount]:
        """Return what became of probes."""
        ...


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens."""

    node_name: str
    address: str = "127.0.0.1"
    port: int = 10250
    devices: tuple[str, ...] = ()
    """Network devices of which any address is answered as well, when they are there: lo and the bridge of Pods, so
    that programs of this machine and Pods find the kubelet at the node's address, and nobody else does."""


class KubeletServer:
    """Serves one node. `run` listens until cancelled."""

    def __init__(
        self,
        settings: ServerSettings,
        pods: PodSource,
        runtime: Runtime,
        access: Access,
        clock: Clock,
        tls: ssl.SSLContext,
    ) -> None:
        self._settings = settings
        self._pods = pods
        self._runtime = runtime
        self._access = access
        self._clock = clock
        self._tls = tls
        self.port = 0

    async def run(self, *, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled; raises OSError if the address is taken."""
        server = httpserver.HttpServer(self._handle, keepalive_timeout=75.0)
        loop = asyncio.get_running_loop()
        settings = self._settings
        # Sockets of other devices share the port: the most specific one gets a connection.
        listener = await loop.create_server(
            server, settings.address, settings.port, ssl=self._tls, reuse_port=bool(settings.devices)
        )
        self.port = int(listener.sockets[0].getsockname()[1])
        if ready is not None:
            ready.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                for device in settings.devices:
                    tasks.create_task(self._listen_on(device, server))
                await loop.create_future()
        finally:
            listener.close()
            await server.shutdown(1.0)

    async def _listen_on(self, device: str, server: web.Server) -> None:
        """Serve whatever comes in by a device, from when it appears; anew when it was made anew."""
        listener: asyncio.Server | None = None
        bound = 0
        try:
            while True:
                index = _device_index(device)
                if index != bound:
                    if listener is not None:
                        listener.close()
                    listener = await self._bind(device, server) if index else None
                    bound = index if listener is not None else 0
                await self._clock.sleep(DEVICE_LOOK_SECONDS)
        finally:
            if listener is not None:
                listener.close()

    async def _bind(self, device: str, server: web.Server) -> asyncio.Server | None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.bind(("0.0.0.0", self.port))
            return await asyncio.get_running_loop().create_server(server, sock=sock, ssl=self._tls)
        except OSError as error:
            _log.warning("the kubelet is not reached by a device", device=device, reason=str(error))
            sock.close()
            return None

    async def _handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        path = raw.path
        ssl_object = raw.transport.get_extra_info("ssl_object") if raw.transport else None
        certificate = ssl_object.getpeercert(True) if ssl_object is not None else None
        bearer = raw.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        try:
            caller = await self._access.caller(certificate, bearer)
        except apierrors.ApiError:
            return web.Response(status=500, text="the API server could not be asked who you are")
        if caller is None:
            return web.Response(status=401, text="Unauthorized")
        if not await self._access.may(caller, raw.method, path):
            return web.Response(status=403, text=refusal(caller, raw.method, path))
        try:
            return await self._route(raw, [part for part in path.split("/") if part])
        except NotThere as error:
            return web.Response(status=400, text=str(error))
        except (RuntimeFailure, apierrors.ApiError) as error:
            return web.Response(status=500, text=str(error))

    async def _route(self, raw: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        match parts:
            case ["configz"]:
                document = kubelet_configuration(self._pods.settings)
                return web.Response(body=serialization.encode_tree(document), content_type="application/json")
            case ["healthz"] if "verbose" in raw.query:
                checks = "".join(f"[+]{name} ok\n" for name in _HEALTH_CHECKS)
                return web.Response(text=f"{checks}healthz check passed\n")
            case ["healthz"]:
                return web.Response(text="ok")
            case ["healthz", check] if check in _HEALTH_CHECKS:
                return web.Response(text="ok")
            case ["pods"] | ["runningpods"]:
                return _json(core.PodList(items=list(self._pods.pods())))
            case ["containerLogs", namespace, name, container]:
                return await self._send_log(raw, self._pod(namespace, name), container)
            case ["exec", namespace, name, *_, container]:
                return await self._exec(raw, self._pod(namespace, name), container)
            case ["attach", namespace, name, *_, container]:
                return await self._attach(raw, self._pod(namespace, name), container)
            case ["run", namespace, name, *_, container]:
                return await self._run(raw, self._pod(namespace, name), container)
            case ["portForward", namespace, name, *_]:
                return await self._port_forward(raw, self._pod(namespace, name))
            case ["stats", "summary"]:
                return await self._summary(raw)
            case ["metrics"]:
                return _metrics(
                    agent_families(self._pods.statistics(), self._runtime.call_tallies(), await self._usage())
                )
            case ["metrics", "cadvisor"]:
                return _metrics(cadvisor_families(await self._pods.usage()))
            case ["metrics", "resource"]:
                return _metrics(resource_families(await self._usage()))
            case ["metrics", "probes"]:
                return _metrics(probe_families(self._pods.probe_counts()))
            case ["logs", *_]:
                return web.Response(status=404, text="system logs are not served: use haven logs on the node")
        return web.Response(status=404, text="404 page not found\n")

    def _pod(self, namespace: str, name: str) -> core.Pod:
        pod = self._pods.find_pod(namespace, name)
        if pod is None:
            raise NotThere("pod does not exist")
        return pod

    # Logs

    async def _send_log(self, raw: web.BaseRequest, pod: core.Pod, container: str) -> web.StreamResponse:
        query = raw.query
        since: float | None = None
        if query.get("sinceSeconds"):
            since = self._clock.now_seconds() - int(query["sinceSeconds"])
        elif query.get("sinceTime"):
            since = times.parse(query["sinceTime"])
        wanted = LogQuery(
            follow=query.get("follow") == "true",
            timestamps=query.get("timestamps") == "true",
            tail_lines=int(query["tailLines"]) if "tailLines" in query else None,
            limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
            since_seconds=since,
            stream=query.get("stream") or "All",
        )
        container_id = log_container_id(pod, container, previous=query.get("previous") == "true")
        path = Path((await self._runtime.container_status(container_id)).log_path)
        if not path.exists():
            raise NotThere(f"the log of container {container!r} is gone: {path}")

        async def is_running() -> bool:
            try:
                return (await self._runtime.container_status(container_id)).state is ContainerState.RUNNING
            except RuntimeFailure:
                return False

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(raw)
        async for block in read_log(path, wanted, self._clock, is_running):
            await response.write(block)
        await response.write_eof()
        return response

    # Streams

    async def _exec(self, raw: web.BaseRequest, pod: core.Pod, container: str) -> web.StreamResponse:
        flags = _flags(raw)
        command = raw.query.getall("command", [])
        container_id = running_container_id(pod, container)
        url = await self._runtime.exec_url(container_id, command, **flags)
        return await self._hand_over(raw, url)

    async def _attach(self, raw: web.BaseRequest, pod: core.Pod, container: str) -> web.StreamResponse:
        flags = _flags(raw)
        spec = pod.spec
        main = [(item.name, item.tty) for item in (*spec.containers, *spec.init_containers)]
        flags["tty"] = (container, True) in [*main, *((item.name, item.tty) for item in spec.ephemeral_containers)]
        if flags["tty"]:
            flags["stderr"] = False
        container_id = running_container_id(pod, container)
        url = await self._runtime.attach_url(container_id, **flags)
        return await self._hand_over(raw, url)

    async def _run(self, raw: web.BaseRequest, pod: core.Pod, container: str) -> web.StreamResponse:
        container_id = running_container_id(pod, container)
        result = await self._runtime.exec_sync(container_id, raw.query.get("cmd", "").split(), 0)
        return web.Response(body=result.stdout + result.stderr)

    async def _port_forward(self, raw: web.BaseRequest, pod: core.Pod) -> web.StreamResponse:
        sandboxes = await self._runtime.list_sandboxes({POD_UID_LABEL: pod.metadata.uid})
        ready = [item for item in sandboxes if item.state is SandboxState.READY]
        if not ready:
            raise NotThere(f"pod {pod.metadata.name} is not running")
        newest = max(ready, key=lambda item: item.attempt)
        ports = [int(text) for text in raw.query.getall("port", [])]
        return await self._hand_over(raw, await self._runtime.port_forward_url(newest.id, ports))

    async def _hand_over(self, raw: web.BaseRequest, url: str) -> web.StreamResponse:
        """Connect the client with the runtime's streaming server."""
        target = urlsplit(url)
        backend = Backend(target.hostname or "127.0.0.1", target.port or 80)
        headers = {
            name: value
            for name, value in raw.headers.items()
            if name.lower() not in ("host", "authorization", "content-length")
        }
        path = target.path + (f"?{target.query}" if target.query else "")
        answer = await upgrade(backend, raw.method, path, headers)
        if isinstance(answer, Refused):
            return web.Response(status=answer.status, body=answer.body)
        client = raw.transport
        if client is None:
            answer.transport.close()
            raise ConnectionResetError("the client is gone")
        client.write(answer.head)
        await splice(client, answer.transport, answer.early)
        raise asyncio.CancelledError  # How aiohttp is told that the connection is over and nothing is to be written.

    # Statistics

    async def _summary(self, raw: web.BaseRequest) -> web.Response:
        is_short = raw.query.get("only_cpu_and_memory") == "true"
        document = summary(self._settings.node_name, await self._pods.usage(), only_cpu_and_memory=is_short)
        return web.Response(body=serialization.encode_tree(document), content_type="application/json")

    async def _usage(self) -> NodeUsage | None:
        """Return a reading; None if the runtime does not answer, which other metrics must survive."""
        try:
            return await self._pods.usage()
        except RuntimeFailure as error:
            _log.warning("resource use cannot be read", reason=str(error))
            return None


def _device_index(name: str) -> int:
    """Return a network device's number, 0 if it is not there."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _flags(raw: web.BaseRequest) -> dict[str, bool]:
    query = raw.query
    tty = query.get("tty") in ("1", "true")
    return {
        "tty": tty,
        "stdin": query.get("input") in ("1", "true"),
        "stdout": query.get("output") in ("1", "true"),
        "stderr": query.get("error") in ("1", "true") and not tty,
    }


def _json(value: object) -> web.Response:
    return web.Response(body=serialization.encode(value), content_type="application/json")


def _metrics(families: Iterable[Family]) -> web.Response:
    return web.Response(body=render(families).encode(), headers={"Content-Type": CONTENT_TYPE})
