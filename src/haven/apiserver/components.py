"""The parts of a control plane and how each is doing, which `kubectl get componentstatuses` shows.

The store is asked itself. The scheduler and the controller manager tell how they are when they live in this process;
otherwise they are looked for where upstream's listen: on this machine, at their default ports.
Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/component-status-v1/
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haven.apimachinery.goformat import quote
from haven.apiserver.discovery import KUBERNETES_VERSION
from haven.apiserver.health import Check
from haven.apiserver.webhooks.failures import describe
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = deferred("aiohttp")

__all__ = ["CONTROLLER_MANAGER", "SCHEDULER", "Components", "Condition", "Parts", "Probe", "listening", "stored"]

CONTROLLER_MANAGER = "controller-manager"
SCHEDULER = "scheduler"
_PORTS = {CONTROLLER_MANAGER: 10257, SCHEDULER: 10259}
_PROBE_SECONDS_MAX = 20.0
_BODY_BYTES_MAX = 10 * 1024
_USER_AGENT = "kube-probe/" + ".".join(KUBERNETES_VERSION[1:].split(".")[:2])


@dataclass(frozen=True, slots=True)
class Condition:
    """What is said about a part: True, False or Unknown; what it answered; why it could not be asked."""

    status: str
    message: str
    error: str = ""


HEALTHY = Condition("True", "ok")
Probe = Callable[[], Awaitable[Condition]]
Parts = dict[str, Probe]


def stored(check: Check) -> Probe:
    """Return how the store is asked; `check` is the one of the health endpoints."""

    async def ask() -> Condition:
        problem = await check()
        return Condition("False", "", problem) if problem else HEALTHY

    return ask


def listening(port: int) -> Probe:
    """Return how a part that is another process of this machine is asked."""
    url = f"https://127.0.0.1:{port}/healthz"

    async def ask() -> Condition:
        try:
            async with (
                asyncio.timeout(_PROBE_SECONDS_MAX),
                aiohttp.ClientSession() as session,
                session.get(url, ssl=False, headers={"User-Agent": _USER_AGENT}) as answer,
            ):
                body = (await answer.content.read(_BODY_BYTES_MAX)).decode("utf-8", "replace")
        except TimeoutError:
            text = f"Get {quote(url)}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Condition("False", text)
        except (aiohttp.ClientError, OSError) as error:
            return Condition("False", f"Get {quote(url)}: {describe(error, '127.0.0.1', port)}")
        if answer.status >= 400:
            return Condition("False", f"HTTP probe failed with statuscode: {answer.status}")
        return Condition("True", body)

    return ask


class Components:
    """The parts by name. What is hosted in this process replaces the probe of a port."""

    def __init__(self, etcd: Probe) -> None:
        self.parts: Parts = {"etcd-0": etcd, **{name: listening(port) for name, port in _PORTS.items()}}

    def host(
        self, name: str, work: Callable[[], Awaitable[None]], problem: Callable[[], str] | None = None
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return work that, from now on, is the part of that name: healthy as long as it runs and has no problem."""
        state = "has not started yet"

        async def run() -> None:
            nonlocal state
            state = ""
            try:
                await work()
            except BaseException as error:
                state = f"ended: {error}" if str(error) else f"ended: {type(error).__name__}"
                raise
            else:
                state = "ended"

        async def ask() -> Condition:
            wrong = state or (problem() if problem is not None else "")
            return Condition("False", wrong) if wrong else HEALTHY

        self.parts[name] = ask
        return run
