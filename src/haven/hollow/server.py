"""The kubelets' HTTPS server, one for all simulated nodes: logs, exec, attach, port-forward, metrics.

It takes only clients with a certificate of the cluster's authority, as the API server has one. What commands answer
and what listens on ports is up to the Pods' behaviours.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from haven import telemetry
from haven.api.core import v1 as core
from haven.apimachinery import serialization, times
from haven.clock import Clock
from haven.deferred import deferred
from haven.hollow.behaviour import Exec, ExecResult, Run
from haven.hollow.logs import ContainerLog, LogQuery, chosen, newer, render
from haven.hollow.podstate import Container, State
from haven.hollow.runner import Fleet, NotSimulated, Sim
from haven.hollow.streams import REMOTE_PROTOCOLS, Session, Stream, choose_protocol, exit_status, take_over
from haven.hollow.usage import resource_metrics, summary

if TYPE_CHECKING:
    from aiohttp import web

    from haven.client import httpserver
else:
    web = deferred("aiohttp.web")
    httpserver = deferred("haven.client.httpserver")

__all__ = ["NODE_HEADER", "HollowServer"]

_log = telemetry.logger("hollow")
NODE_HEADER = "X-Hollow-Node"
"""Tells which node is meant, where the path does not say."""
NOT_FOUND = 127
FAILED = 1


class NotThere(Exception):
    """The container has no log, or does not run; the message says why."""


class HollowServer:
    """Serves all nodes of a fleet. `start` it before the nodes register, as they tell its port."""

    def __init__(self, fleet: Callable[[], Fleet], clock: Clock, tls: ssl.SSLContext | None) -> None:
        self._fleet = fleet
        self._clock = clock
        self._tls = tls
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        self.port = 0

    async def start(self, host: str = "127.0.0.1") -> int:
        """Listen on a free port; return it."""
        self._listener = await asyncio.get_running_loop().create_server(self._accept, host, 0, ssl=self._tls)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self.port

    def _accept(self) -> asyncio.Protocol:
        if self._server is None:
            self._server = httpserver.HttpServer(self._handle, keepalive_timeout=75.0)
        return self._server()

    async def close(self) -> None:
        """Stop listening and end what is under way."""
        if self._listener is not None:
            self._listener.close()
        for session in tuple(self._sessions):
            session.close()
        if self._server is not None:
            await self._server.shutdown(0.1)

    async def _handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(raw, [part for part in raw.path.split("/") if part])
        except (NotThere, NotSimulated) as error:
            return web.Response(status=400, text=str(error))

    async def _route(self, raw: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        match parts:
            case ["healthz"]:
                return web.Response(text="ok")
            case ["containerLogs", namespace, name, container]:
                return await self._send_log(raw, self._sim(namespace, name), container)
            case ["exec", namespace, name, container] | ["exec", namespace, name, _, container]:
                return await self._exec(raw, self._sim(namespace, name), container)
            case ["attach", namespace, name, container] | ["attach", namespace, name, _, container]:
                return await self._attach(raw, self._sim(namespace, name), container)
            case ["run", namespace, name, container] | ["run", namespace, name, _, container]:
                return await self._run(raw, self._sim(namespace, name), container)
            case ["portForward", namespace, name] | ["portForward", namespace, name, _]:
                return await self._port_forward(raw, self._sim(namespace, name))
            case ["pods"] | ["runningpods"]:
                node = self._fleet().nodes.get(raw.headers.get(NODE_HEADER, ""))
                pods = [sim.state.pod for sim in self._fleet().sims() if sim.node is node]
                return _json(core.PodList(items=pods))
            case ["stats", "summary"]:
                return self._of_node(raw, lambda *known: _json(summary(*known)))
            case ["metrics", "resource"]:
                return self._of_node(raw, lambda *known: web.Response(text=resource_metrics(*known)))
        return web.Response(status=404, text="404 page not found\n")

    def _of_node(self, raw: web.BaseRequest, answer: Callable[..., web.Response]) -> web.Response:
        fleet = self._fleet()
        node = fleet.nodes.get(raw.headers.get(NODE_HEADER, ""))
        if node is None:
            return web.Response(status=404, text="the node is not simulated")
        return answer(node, fleet.sims(), self._clock.now_seconds())

    def _sim(self, namespace: str, name: str) -> Sim:
        sim = self._fleet().sim(namespace, name)
        if not sim.node.is_alive:
            raise NotThere(f"node {sim.node.settings.name} is switched off")
        return sim

    # Logs

    async def _send_log(self, raw: web.BaseRequest, sim: Sim, container: str) -> web.StreamResponse:
        query = raw.query
        since: float | None = None
        if query.get("sinceSeconds"):
            since = self._clock.now_seconds() - int(query["sinceSeconds"])
        elif query.get("sinceTime"):
            since = times.parse(query["sinceTime"])
        wanted = LogQuery(
            timestamps=query.get("timestamps") == "true",
            tail_lines=int(query["tailLines"]) if "tailLines" in query else None,
            limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
            since_seconds=since,
            stream=query.get("stream") or "All",
        )
        log = _log_of(sim, container, previous=query.get("previous") == "true")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(raw)
        seen, room = log.added, wanted.limit_bytes
        data = render(chosen(log, wanted), wanted)
        while True:
            if room is not None:
                data, room = data[:room], room - len(data)
            if data:
                await response.write(data)
            if query.get("follow") != "true" or (room is not None and room <= 0):
                break
            await log.wait_more(seen)
            if log.added == seen and log.is_closed:
                break
            data, seen = render(newer(log, seen, wanted), wanted), log.added
        await response.write_eof()
        return response

    # Commands

    async def _exec(self, raw: web.BaseRequest, sim: Sim, container: str) -> web.StreamResponse:
        item = _running(sim, container)
        command = tuple(raw.query.getall("command", []))
        return await self._remote(raw, lambda streams: self._command(sim, item, command, streams, raw))

    async def _command(
        self, sim: Sim, item: Container, command: tuple[str, ...], streams: dict[str, Stream], raw: web.BaseRequest
    ) -> int:
        is_tty = _flag(raw, "tty")
        stdin = b""
        if "stdin" in streams and not is_tty:
            stdin = await streams["stdin"].reader.read()
        asked = Exec(sim.state.pod, item.spec.name, command, stdin, is_tty)
        result = await answer_exec(item.behaviour.run, asked)
        for kind, output in (("stdout", result.stdout), ("stderr", result.stderr)):
            stream = streams.get(kind) or (streams.get("stdout") if is_tty else None)
            if stream is not None:
                stream.write(output.encode() if isinstance(output, str) else output)
        return result.exit_code

    async def _attach(self, raw: web.BaseRequest, sim: Sim, container: str) -> web.StreamResponse:
        item = _running(sim, container)
        log = _log_of(sim, container, previous=False)

        async def show(streams: dict[str, Stream]) -> int:
            seen = log.added
            while True:
                await log.wait_more(seen)
                for line in newer(log, seen, LogQuery()):
                    stream = streams.get("stderr" if line.stream == "Stderr" else "stdout") or streams.get("stdout")
                    if stream is not None:
                        stream.write(f"{line.text}\n".encode())
                if log.added == seen and log.is_closed:
                    return item.end.exit_code if item.end is not None else 0
                seen = log.added

        return await self._remote(raw, show)

    async def _remote(self, raw: web.BaseRequest, serve: Callable[[dict[str, Stream]], Any]) -> web.StreamResponse:
        """Serve a command's streams; ends by taking over the connection."""
        flags = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"))
        kinds = ["error", *(kind for kind, flag in flags if _flag(raw, flag))]
        if _flag(raw, "tty") and "stderr" in kinds:
            kinds.remove("stderr")
        protocol = choose_protocol(raw.headers.getall("X-Stream-Protocol-Version", []), REMOTE_PROTOCOLS)

        async def work(session: Session) -> None:
            streams = await session.streams(kinds)
            serving = asyncio.ensure_future(serve(streams))
            closing = asyncio.ensure_future(session.closed.wait())
            try:
                await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    _tell_exit(streams["error"], protocol, serving.result())
            finally:
                serving.cancel()
                closing.cancel()
            for stream in streams.values():
                stream.close()

        return await self._upgraded(raw, protocol, work)

    async def _run(self, raw: web.BaseRequest, sim: Sim, container: str) -> web.StreamResponse:
        item = _running(sim, container)
        command = tuple(raw.query.get("cmd", "").split())
        result = await answer_exec(item.behaviour.run, Exec(sim.state.pod, container, command))
        parts = (part.encode() if isinstance(part, str) else part for part in (result.stdout, result.stderr))
        return web.Response(body=b"".join(parts))

    # Port-forward

    async def _port_forward(self, raw: web.BaseRequest, sim: Sim) -> web.StreamResponse:
        async def work(session: Session) -> None:
            pairs: dict[str, dict[str, Stream]] = {}
            closing = asyncio.ensure_future(session.closed.wait())
            async with asyncio.TaskGroup() as tasks:
                while not session.closed.is_set():
                    opening = asyncio.ensure_future(session.opened.get())
                    await asyncio.wait({opening, closing}, return_when=asyncio.FIRST_COMPLETED)
                    if not opening.done():
                        opening.cancel()
                        break
                    stream = opening.result()
                    pair = pairs.setdefault(stream.headers.get("requestid", ""), {})
                    pair[stream.kind] = stream
                    if len(pair) == 2:
                        tasks.create_task(self._forward(sim, pair["data"], pair["error"]))

        return await self._upgraded(raw, "portforward.k8s.io", work)

    @staticmethod
    async def _forward(sim: Sim, data: Stream, error: Stream) -> None:
        port = int(data.headers.get("port", "0"))
        listening = next((item for item in sim.state.main if item.behaviour.port is not None), None)
        try:
            if listening is None or listening.behaviour.port is None:
                error.write(f"nothing listens on port {port}: the test has not said port=… of this Pod".encode())
            elif listening.state is not State.RUNNING:
                error.write(f"container {listening.spec.name} does not run".encode())
            else:
                await listening.behaviour.port(sim.state.pod, port, data.reader, data)
        except Exception as failure:  # The test's own code; its client hears of it.
            _log.warning("A forwarded port failed.", port=port, exc_info=failure)
            error.write(f"{type(failure).__name__}: {failure}".encode())
        finally:
            data.close()
            error.close()

    async def _upgraded(
        self, raw: web.BaseRequest, protocol: str, work: Callable[[Session], Any]
    ) -> web.StreamResponse:
        if "upgrade" not in raw.headers.get("Connection", "").lower() or raw.transport is None:
            return web.Response(status=400, text="Upgrade request required")
        session = take_over(raw.transport, protocol)
        self._sessions.add(session)
        try:
            await work(session)
        except TimeoutError:
            _log.info("A client did not open the streams it asked for.", path=raw.path)
        finally:
            self._sessions.discard(session)
            session.close()
        raise asyncio.CancelledError  # How aiohttp is told that the connection is over and nothing is to be written.


async def answer_exec(run: Run | None, asked: Exec) -> ExecResult:
    """Return what a command does; synchronous callbacks run in a thread, so that they may call the cluster."""
    if run is None:
        return ExecResult(stderr="this Pod is simulated: the test has not said run=… of it\n", exit_code=NOT_FOUND)
    try:
        result = run(asked) if inspect.iscoroutinefunction(run) else await asyncio.to_thread(run, asked)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:  # The test's own code; whoever ran the command sees the error.
        return ExecResult(stderr=f"{type(error).__name__}: {error}\n", exit_code=FAILED)
    if isinstance(result, ExecResult):
        return result
    if isinstance(result, int):
        return ExecResult(exit_code=result)
    return ExecResult(stdout=b"" if result is None else result)


def _tell_exit(stream: Stream, protocol: str, code: int) -> None:
    if protocol.startswith("v4"):
        stream.write(serialization.encode_tree(exit_status(code)))
    elif code:
        stream.write(f"command terminated with exit code {code}".encode())


def _log_of(sim: Sim, name: str, *, previous: bool) -> ContainerLog:
    pod = sim.state.pod.metadata.name
    try:
        item = sim.state.container(name)
    except KeyError:
        raise NotThere(f'container "{name}" in pod "{pod}" is not available') from None
    runs = sim.logs.get(name, [])
    if previous:
        if item.last_end is None or len(runs) < 2:
            raise NotThere(f'previous terminated container "{name}" in pod "{pod}" not found')
        return runs[-2]
    if not runs:
        reason = item.reason or "ContainerCreating"
        raise NotThere(f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
    return runs[-1]


def _running(sim: Sim, name: str) -> Container:
    try:
        item = sim.state.container(name)
    except KeyError:
        raise NotThere(f'container not found ("{name}")') from None
    if item.state is not State.RUNNING:
        raise NotThere(f'container not found ("{name}")')
    return item


def _flag(raw: web.BaseRequest, name: str) -> bool:
    return raw.query.get(name) in ("1", "true")


def _json(value: object) -> web.Response:
    return web.Response(body=serialization.encode(value), content_type="application/json")
