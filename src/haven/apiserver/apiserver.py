"""A running API server: what it was started with, how it listens, what it keeps going, and how it stops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from haven.apimachinery.names import Revision
from haven.apiserver.aggregation.proxy import ExtensionServers
from haven.apiserver.audit.assembly import Audit
from haven.apiserver.authentication.interface import (
    ALL_AUTHENTICATED,
    MASTERS,
)
from haven.apiserver.authentication.serviceaccounts import DEFAULT_ISSUER
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.chain import Chain, PathHandler
from haven.apiserver.components import Components
from haven.apiserver.documents import Shutdown
from haven.apiserver.flowcontrol.runner import FlowControl
from haven.apiserver.http.server import HttpServer
from haven.apiserver.local import LocalClient, LocalTransport
from haven.apiserver.objects import StoredObjects
from haven.apiserver.registry.kubernetesservice import KubernetesService, primary_address
from haven.apiserver.registry.resources import Resources
from haven.apiserver.registry.storage import Storages
from haven.apiserver.request import UserInfo
from haven.apiserver.security import Guard
from haven.apiserver.settings import Settings
from haven.apiserver.streaming.handlers import NodeBackends, Streaming
from haven.apiserver.tracing import Tracing
from haven.apiserver.watchcache import Statistics
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.clock import Clock
from haven.metrics.families import Registry
from haven.store.interface import Store

if TYPE_CHECKING:
    pass

__all__ = ["ADMIN", "ApiServer", "ServerStatistics", "Trust"]

ADMIN = UserInfo("system:apiserver", groups=(MASTERS, ALL_AUTHENTICATED))
"""The server itself."""


@dataclass(frozen=True)
class Trust:
    """Whom to believe: keys of service account tokens, authorities of client certificates, fixed tokens; and TLS."""

    signing_keys: SigningKeys
    client_authorities: Sequence[x509.Certificate] = ()
    client_ca_pem: str = ""
    static_tokens: Mapping[str, UserInfo] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    nodes: NodeBackends | None = None
    """How to reach kubelets; None trusts the system's authorities and shows no certificate."""
    issuer: str = DEFAULT_ISSUER
    front_proxy_authorities: Sequence[x509.Certificate] = ()
    """Who issues certificates to proxies that authenticate users themselves and say so in X-Remote-… headers."""
    front_proxy_ca_pem: str = ""
    """The same, for extension API servers, to which this server is such a proxy."""
    front_proxy_names: tuple[str, ...] = ("front-proxy-client",)
    proxy_client: tuple[Path, Path] | None = None
    """The files of the certificate and key by which this server proves to them that it is one."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of a server."""

    revision: Revision
    caches: Mapping[str, Statistics]
    ready_seconds: float


class ApiServer:
    """A running API server. Made by `start`."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        storages: Storages,
        resources: Resources,
        chain: Chain,
        http: HttpServer,
        streaming: Streaming,
        objects: StoredObjects,
        caller: WebhookCaller,
        audit: Audit | None,
        guard: Guard,
        flows: FlowControl,
        extensions: ExtensionServers,
        components: Components,
        shutdown: Shutdown,
        metrics: Registry,
        tracing: Tracing | None,
        handle: PathHandler,
        clock: Clock,
        ready_seconds: float,
    ) -> None:
        self.settings = settings
        self.store = store
        self.storages = storages
        self.resources = resources
        self.chain = chain
        self.objects = objects
        self.caller = caller
        self.guard = guard
        self.flows = flows
        self.components = components
        self.shutdown = shutdown
        self.metrics = metrics
        self._tracing = tracing
        self.handle = handle
        """What answers a request that came over a socket."""
        self._audit = audit
        self._extensions = extensions
        self.port = 0
        self._http = http
        self._streaming = streaming
        self._ready_seconds = ready_seconds
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def listen(self) -> int:
        """Accept connections; return the port."""
        self.port = await self._http.listen(self.settings.host, self.settings.port, share_port=self.settings.share_port)
        if self.settings.pod_side_address:
            await self._http.listen_ahead(
                self.settings.pod_side_address, self.port, share_port=self.settings.share_port
            )
        if self.settings.serve_kubernetes_service:
            keeper = KubernetesService(
                self.local_client(),
                self._clock,
                networks=self.settings.service_networks,
                address=self.settings.advertise_address
                or self.settings.pod_side_address
                or primary_address(self.settings.host),
                port=self.port,
            )
            self.keep(keeper.run(), "kubernetes-service")
        return self.port

    def keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something until the server stops."""
        self._tasks.append(asyncio.create_task(work, name=name))

    def local_transport(self, user: UserInfo = ADMIN) -> LocalTransport:
        """Return a transport that acts as a user, without sockets."""
        return LocalTransport(self.chain.handle, user, self.chain.outgoing)

    def local_client(self, user: UserInfo = ADMIN, *, agent: str = "kube-apiserver") -> LocalClient:
        """Return a client that acts as a user and shares typed objects with the caches.

        What it writes is managed by `agent`, which clients see in metadata.managedFields and in conflicts of applies.
        """
        return LocalClient(self.chain, self.resources, user, agent=agent)

    def statistics(self) -> ServerStatistics:
        """Return a snapshot."""
        caches = {str(one.resource.group_resource): one.cache.statistics() for one in self.storages.all()}
        return ServerStatistics(self.store.revision, caches, self._ready_seconds)

    async def stop(self) -> None:
        """Stop serving; the store stays open. Calling it again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self.shutdown.begun = True
        if self.settings.shutdown_delay_seconds:
            await self._clock.sleep(self.settings.shutdown_delay_seconds)
        if self.settings.shutdown_watch_grace_seconds:
            await self.storages.end_watches(self.settings.shutdown_watch_grace_seconds, self._clock)
        for task in self._tasks:
            task.cancel()
        self.storages.close()
        await self._http.close(self.settings.shutdown_grace_seconds)
        await self._streaming.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._audit is not None:
            await self._audit.close()
        await self.caller.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await self._extensions.close()
