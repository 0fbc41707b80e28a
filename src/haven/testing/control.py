"""The cluster's strings for programs in other languages: POST and GET below /haven/ on the API server.

Only administrators may (it is a path like any other to RBAC). Bodies and answers are JSON; docs/testing.md lists them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from haven.apimachinery import apierrors, serialization
from haven.apimachinery.selectors import parse_labels
from haven.apiserver.request import Request, Response
from haven.hollow.behaviour import Behaviour, Rule, Usage
from haven.hollow.runner import NotSimulated
from haven.testing.nodesettings import node_settings
from haven.testing.podscript import OOM_KILLED, PodScript

if TYPE_CHECKING:
    from haven.testing.world import World, WorldSnapshot

__all__ = ["PREFIX", "Control"]

PREFIX = "/haven/"
"""How long an order to a Pod waits for it to run, in real time."""
Tree = dict[str, Any]
Handler = Callable[[Request, list[str], Tree], Awaitable[Any]]
_MATCHES = ("name", "namespace", "image", "owner", "container", "node")
_RECORDED = ("verb", "user", "group", "version", "resource", "subresource", "namespace", "name", "status")


class Control:
    """Answers requests below PREFIX for one cluster."""

    any_method = True

    def __init__(self, world: World) -> None:
        self._world = world
        self._script = PodScript(world)
        self._snapshots: list[WorldSnapshot] = []

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        first, *rest = request.path.removeprefix(PREFIX).strip("/").split("/")
        handlers: dict[tuple[str, str], Handler] = {
            ("POST", "advance"): self._advance,
            ("POST", "settle"): self._settle,
            ("GET", "clock"): self._clock,
            ("POST", "pods"): self._pod,
            ("POST", "behave"): self._behave,
            ("POST", "nodes"): self._nodes,
            ("POST", "faults"): self._fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "audit"): self._audit,
            ("POST", "snapshots"): self._snapshot,
            ("POST", "compact"): self._compact,
        }
        handler = handlers.get((request.method, first))
        if handler is None:
            offered = ", ".join(f"{method} {PREFIX}{name}" for method, name in handlers)
            raise apierrors.NotFound(f"there is no {request.method} {request.path}: there are {offered}")
        try:
            body = json.loads(request.body) if request.body else {}
            answer = await handler(request, rest, body)
        except (ValueError, TypeError, KeyError, NotSimulated, TimeoutError) as error:
            raise apierrors.BadRequest(f"{type(error).__name__}: {error}") from error
        return Response(200, {"Content-Type": "application/json"}, serialization.encode_tree(answer or {}))

    # Time

    async def _advance(self, request: Request, rest: list[str], body: Tree) -> Tree:
        await self._world.clock.advance(float(body["seconds"]))
        return await self._clock(request, rest, body)

    async def _clock(self, request: Request, rest: list[str], body: Tree) -> Tree:
        return {"now": self._world.clock.now_seconds(), "frozen": self._world.clock.is_frozen}

    async def _settle(self, request: Request, rest: list[str], body: Tree) -> None:
        await self._world.clock.rest()

    # Pods and nodes

    async def _pod(self, request: Request, rest: list[str], body: Tree) -> None:
        namespace, name = rest
        async with asyncio.timeout(float(body.get("timeout", self._world.options.wait_seconds))):
            await self._order(namespace, name, body)

    async def _order(self, namespace: str, name: str, body: Tree) -> None:
        container, reason, message = (str(body.get(key, "")) for key in ("container", "reason", "message"))
        match body["do"]:
            case "succeed":
                await self._script.end(namespace, name, container, 0, "Completed", message)
            case "fail":
                code = int(body.get("exitCode", 1))
                await self._script.end(namespace, name, container, code, reason, message)
            case "crash":
                await self._script.end(namespace, name, container, OOM_KILLED, "OOMKilled", message)
            case "ready" | "unready" as word:
                await self._script.ready(namespace, name, container, word == "ready")
            case "log":
                await self._script.log(namespace, name, container, str(body["text"]), "Stdout")
            case "evict":
                await self._script.evict(namespace, name, reason or "Evicted", message)
            case other:
                raise ValueError(f"a Pod cannot {other!r}: succeed, fail, crash, ready, unready, log, evict")

    async def _behave(self, request: Request, rest: list[str], body: Tree) -> None:
        matches = {key: body.pop(key) for key in _MATCHES if key in body}
        selector = body.pop("selector", "")
        said = {_snake(key): value for key, value in body.items()}
        if "usage" in said:
            said["usage"] = Usage(**{_snake(key): value for key, value in said["usage"].items()})
        rule = Rule(Behaviour(**said), labels=parse_labels(selector) if selector else None, **matches)
        self._world.fleet.add_rule(rule)

    async def _nodes(self, request: Request, rest: list[str], body: Tree) -> Tree:
        names = [str(name) for name in body["names"]]
        for name in names:
            settings = {key: value for key, value in body.items() if key != "names"}
            await self._world.fleet.add_node(node_settings(name, settings))
        return {"names": names}

    # Faults, audit, going back

    async def _fault(self, request: Request, rest: list[str], body: Tree) -> None:
        self._world.faults.add(**{_snake(key): value for key, value in body.items()})

    async def _clear_faults(self, request: Request, rest: list[str], body: Tree) -> None:
        self._world.faults.clear()

    async def _audit(self, request: Request, rest: list[str], body: Tree) -> Tree:
        wanted: Tree = {_snake(key): values[0] for key, values in request.query.items()}
        if "status" in wanted:
            wanted["status"] = int(wanted["status"])
        if "components" in wanted:
            wanted["components"] = wanted["components"] == "true"
        found = self._world.audit.records(**wanted)
        return {"items": [{key: getattr(item, key) for key in _RECORDED} | {"body": item.body} for item in found]}

    async def _snapshot(self, request: Request, rest: list[str], body: Tree) -> Tree:
        if rest:
            number = int(rest[0])
            if not 0 <= number < len(self._snapshots):
                raise ValueError(f"there is no snapshot {number}: {len(self._snapshots)} were taken, from 0 on")
            await self._world.restore(self._snapshots[number])
            return {"id": rest[0]}
        self._snapshots.append(await self._world.snapshot())
        return {"id": str(len(self._snapshots) - 1)}

    async def _compact(self, request: Request, rest: list[str], body: Tree) -> None:
        await self._world.compact()


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
