"""Performs what probes and lifecycle hooks ask for: a command, an HTTP request, a connection, a gRPC health check.

Outcomes are data; texts are worded as upstream's (Go's) because people read them in events.
Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/ and .../container-lifecycle-hooks/
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import aiohttp
import grpc
import yarl

from haven.api.core.v1 import (
    Container,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    LifecycleHandler,
    Pod,
    ProbeHandler,
    TCPSocketAction,
)
from haven.clock import Clock
from haven.cri import errors
from haven.cri.interface import ExecResult
from haven.kubelet.expansion import expand

__all__ = ["HandlerRunner", "Outcome", "OutcomeKind"]

_BODY_BYTES_MAX = 10 * 1024
_OUTPUT_BYTES_MAX = 10 * 1024
_REDIRECTS_MAX = 10


class OutcomeKind(Enum):
    """What a handler's run means."""

    SUCCESS = "success"
    WARNING = "warning"
    """Good enough, but worth an event."""
    FAILURE = "failure"
    ERROR = "unknown"
    """It could not be run at all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run of a handler."""

    kind: OutcomeKind
    text: str = ""


class Execute(Protocol):
    """Runs commands in containers (the runtime's exec_sync)."""

    async def __call__(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult: ...


class BadHandler(Exception):
    """The handler refers to something that the container does not have."""


class HandlerRunner:
    """Runs handlers of any kind. Connections are made anew each time, so that a probe sees what a new client sees."""

    def __init__(self, execute: Execute, clock: Clock, *, user_agent_version: str = "1.36") -> None:
        self._execute = execute
        self._clock = clock
        self._version = user_agent_version
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def probe(
        self, handler: ProbeHandler, container: Container, container_id: str, pod_ip: str, timeout_seconds: float
    ) -> Outcome:
        """Run a probe's handler."""
        try:
            if handler.exec is not None:
                return await self._exec(handler.exec, container, container_id, timeout_seconds)
            if handler.http_get is not None:
                return await self._http(
                    handler.http_get, container, pod_ip, timeout_seconds, f"kube-probe/{self._version}"
                )
            if handler.tcp_socket is not None:
                return await self._tcp(handler.tcp_socket, container, pod_ip, timeout_seconds)
            if handler.grpc is not None:
                return await self._grpc(handler.grpc, pod_ip, timeout_seconds)
        except BadHandler as error:
            return Outcome(OutcomeKind.ERROR, str(error))
        return Outcome(OutcomeKind.ERROR, f"missing probe handler for {container.name}")

    async def hook(
        self, handler: LifecycleHandler, pod: Pod, container: Container, container_id: str, pod_ip: str
    ) -> Outcome:
        """Run a lifecycle hook; it has no limit of its own."""
        try:
            if handler.exec is not None:
                return await self._exec_hook(handler.exec, pod, container, container_id)
            if handler.http_get is not None:
                return await self._http_hook(handler.http_get, container, pod_ip)
            if handler.tcp_socket is not None:
                return await self._tcp(handler.tcp_socket, container, pod_ip, 30)
            if handler.sleep is not None:
                await self._clock.sleep(handler.sleep.seconds)
                return Outcome(OutcomeKind.SUCCESS)
        except BadHandler as error:
            return Outcome(OutcomeKind.FAILURE, str(error))
        return Outcome(OutcomeKind.FAILURE, f"invalid handler: {container.name}")

    # Commands.

    async def _exec(
        self, action: ExecAction, container: Container, container_id: str, timeout_seconds: float
    ) -> Outcome:
        static = {variable.name: variable.value for variable in container.env if variable.value_from is None}
        command = [expand(item, static) for item in action.command]
        try:
            result = await self._execute(container_id, command, timeout_seconds)
        except errors.DeadlineExceeded:
            joined = " ".join(command)
            return Outcome(OutcomeKind.FAILURE, f'command timed out: "{joined}" timed out after {timeout_seconds:g}s')
        except errors.RuntimeFailure as error:
            return Outcome(OutcomeKind.ERROR, error.rpc_text)
        output = (result.stdout + result.stderr)[:_OUTPUT_BYTES_MAX].decode(errors="replace")
        return Outcome(OutcomeKind.SUCCESS if result.exit_code == 0 else OutcomeKind.FAILURE, output)

    async def _exec_hook(self, action: ExecAction, pod: Pod, container: Container, container_id: str) -> Outcome:
        try:
            result = await self._execute(container_id, action.command, 0)
        except errors.RuntimeFailure as error:
            return Outcome(OutcomeKind.FAILURE, error.rpc_text)
        if result.exit_code == 0:
            return Outcome(OutcomeKind.SUCCESS)
        command = " ".join(action.command)
        output = (result.stdout + result.stderr).decode(errors="replace")
        return Outcome(OutcomeKind.FAILURE, f"command '{command}' exited with {result.exit_code}: {output}")

    # HTTP.

    async def _http(
        self, action: HTTPGetAction, container: Container, pod_ip: str, timeout_seconds: float, agent: str
    ) -> Outcome:
        url = http_url(action, container, pod_ip)
        headers = _headers(action.http_headers, agent)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._get(url, headers)
        except TimeoutError:
            text = f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
            return Outcome(OutcomeKind.FAILURE, text)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(OutcomeKind.FAILURE, f'Get "{url}": {_network_text(error, url.host or "", url.port or 0)}')

    async def _get(self, url: yarl.URL, headers: dict[str, str]) -> Outcome:
        """Follow redirects on the same host; one to another host is a warning, not a failure."""
        session = self._http_session()
        current = url
        for _ in range(_REDIRECTS_MAX):
            async with session.get(current, headers=headers, allow_redirects=False, ssl=False) as answer:
                location = answer.headers.get("Location")
                if answer.status in (301, 302, 303, 307, 308) and location:
                    following = current.join(yarl.URL(location))
                    if following.host == url.host:
                        current = following
                        continue
                body = (await answer.content.read(_BODY_BYTES_MAX)).decode(errors="replace")
                if 200 <= answer.status < 300:
                    return Outcome(OutcomeKind.SUCCESS, body)
                if 300 <= answer.status < 400:
                    return Outcome(OutcomeKind.WARNING, f"Probe terminated redirects, Response body: {body}")
                return Outcome(OutcomeKind.FAILURE, f"HTTP probe failed with statuscode: {answer.status}")
        return Outcome(OutcomeKind.FAILURE, f'Get "{current}": stopped after {_REDIRECTS_MAX} redirects')

    async def _http_hook(self, action: HTTPGetAction, container: Container, pod_ip: str) -> Outcome:
        url = http_url(action, container, pod_ip)
        headers = _headers(action.http_headers, f"kube-lifecycle/{self._version}")
        try:
            try:
                return await self._hook_request(url, headers)
            except aiohttp.ClientError:
                if url.scheme != "https":
                    raise
                # Hooks once ignored the scheme; a server without TLS behind an https hook still works.
                plain = _headers([item for item in action.http_headers if item.name.lower() != "authorization"],
                                 headers["User-Agent"])  # fmt: skip
                return await self._hook_request(url.with_scheme("http").with_port(url.port), plain)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            text = _network_text(error, url.host or "", url.port or 0)
            return Outcome(OutcomeKind.FAILURE, f'Get "{url}": {text}')

    async def _hook_request(self, url: yarl.URL, headers: dict[str, str]) -> Outcome:
        async with self._http_session().get(url, headers=headers, ssl=False) as answer:
            await answer.content.read(_BODY_BYTES_MAX)
            return Outcome(OutcomeKind.SUCCESS)

    def _http_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=True, timeout=aiohttp.ClientTimeout(total=None)
            )
        return self._session

    # Connections.

    async def _tcp(self, action: TCPSocketAction, container: Container, pod_ip: str, timeout_seconds: float) -> Outcome:
        port = resolve_port(action.port, container)
        host = action.host or pod_ip
        try:
            async with asyncio.timeout(timeout_seconds):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Outcome(OutcomeKind.FAILURE, f"dial tcp {_join(host, port)}: i/o timeout")
        except OSError as error:
            return Outcome(OutcomeKind.FAILURE, _network_text(error, host, port))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return Outcome(OutcomeKind.SUCCESS)

    async def _grpc(self, action: GRPCAction, pod_ip: str, timeout_seconds: float) -> Outcome:
        target = _join(pod_ip, action.port)
        # HealthCheckRequest has one field, the service (1, text); the response one, the status (1, number).
        service = (action.service or "").encode()
        request = (b"\x0a" + bytes([len(service)]) + service) if service else b""
        async with grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            method: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                answer: bytes = await method(request, timeout=timeout_seconds)
            except grpc.aio.AioRpcError as error:
                return Outcome(OutcomeKind.FAILURE, _grpc_text(error, target, timeout_seconds))
        status = answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
        if status == 1:
            return Outcome(OutcomeKind.SUCCESS, "service healthy")
        name = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}.get(status, str(status))
        return Outcome(OutcomeKind.FAILURE, f'service unhealthy (responded with "{name}")')


def _grpc_text(error: grpc.aio.AioRpcError, target: str, timeout_seconds: float) -> str:
    code = error.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f'timeout: failed to connect service "{target}" within {timeout_seconds:g}s'
    if code is grpc.StatusCode.UNAVAILABLE:
        return f'error: failed to connect service at "{target}": connection refused'
    return f"error: health rpc probe failed: {error.details()}"


def resolve_port(port: int | str, container: Container) -> int:
    """Return the number of a port given by number or by name; raise BadHandler."""
    if isinstance(port, int) or port.isdigit():
        number = int(port)
        if not 0 < number < 65536:
            raise BadHandler(f"invalid port number: {number}")
        return number
    for item in container.ports:
        if item.name == port:
            return item.container_port
    raise BadHandler(f"port not found: couldn't find port: {port} in container {container.name}".partition(": ")[2])


def http_url(action: HTTPGetAction, container: Container, pod_ip: str) -> yarl.URL:
    """Return the URL that an HTTP handler means."""
    scheme = (action.scheme or "HTTP").lower()
    host = action.host or pod_ip
    port = resolve_port(action.port, container)
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return yarl.URL(f"{scheme}://{_join(host, port)}{path}", encoded=True)


def _headers(given: Sequence[HTTPHeader], agent: str) -> dict[str, str]:
    headers = {"User-Agent": agent, "Accept": "*/*"}
    for item in given:
        name = {"user-agent": "User-Agent", "accept": "Accept", "host": "Host"}.get(item.name.lower(), item.name)
        if name == "Accept" and not item.value:
            headers.pop("Accept", None)
            continue
        headers[name] = item.value
    return headers


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _network_text(error: Exception, host: str, port: int) -> str:
    """Word a network error as Go does."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    inner = getattr(error, "os_error", None) or cause
    where = f"dial tcp {_join(host, port)}"
    if isinstance(inner, ConnectionRefusedError) or getattr(inner, "errno", None) == 111:
        return f"{where}: connect: connection refused"
    if getattr(inner, "errno", None) == 113:
        return f"{where}: connect: no route to host"
    if getattr(inner, "errno", None) == 101:
        return f"{where}: connect: network is unreachable"
    if isinstance(inner, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientOSError) and getattr(error, "errno", None) == 104:
        return "read: connection reset by peer"
    return str(error) or type(error).__name__
