"""Listens, and keeps the connections: HTTP/1.1 with keep-alive, over TLS or plain."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from haven.apiserver.http.connection import Handle, HttpConnection, Limits
from haven.apiserver.http.handshakes import Handshakes

if TYPE_CHECKING:
    from haven.apiserver.http.upgrades import Upgrades

__all__ = ["HttpServer"]

_IP_FREEBIND = 15  # Python has no name for it: bind to an address that no interface has yet.
_SWEEP_SECONDS = 5.0
_BACKLOG = 1024


class HttpServer:
    """Listens, reads requests, writes answers."""

    def __init__(
        self,
        handle: Handle,
        *,
        body_bytes_max: int,
        gzip_bytes_min: int,
        tls: ssl.SSLContext | None,
        is_streamed: Callable[[str], bool] = lambda target: False,
    ) -> None:
        self.handle = handle
        self.is_streamed = is_streamed
        self.limits = Limits(body_bytes_max, gzip_bytes_min)
        self.wants_certificates = tls is not None and tls.verify_mode != ssl.CERT_NONE
        self.closing = False
        self.connections: set[HttpConnection] = set()
        self.handshakes = Handshakes()
        self._tls = tls
        self._listeners: list[asyncio.Server] = []
        self._upgrades: Upgrades | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int, *, share_port: bool = False) -> int:
        """Accept connections; return the port (chosen by the system if 0 was asked for)."""
        listener = await asyncio.get_running_loop().create_server(
            self._accept, host, port, ssl=self._tls, backlog=_BACKLOG, reuse_port=share_port or None
        )
        self._listeners.append(listener)
        self._start_sweeping()
        return int(listener.sockets[0].getsockname()[1])

    async def listen_ahead(self, address: str, port: int, *, share_port: bool = False) -> None:
        """Accept connections at an address that this machine may not have yet (a bridge made with the first Pod)."""
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((address, port))
            server = await asyncio.get_running_loop().create_server(
                self._accept, sock=listener, ssl=self._tls, backlog=_BACKLOG
            )
        except OSError:
            listener.close()
            raise
        self._listeners.append(server)
        self._start_sweeping()

    async def close(self, grace_seconds: float) -> None:
        """Stop accepting, end streams, let requests under way finish, close connections."""
        for listener in self._listeners:
            listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.closing = True
        for connection in tuple(self.connections):
            connection.stop()
        if self._upgrades is not None:
            await self._upgrades.close(grace_seconds)
        under_way = {one.task for one in self.connections if one.task is not None and not one.task.done()}
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=grace_seconds)
            for connection in tuple(self.connections):
                if connection.task in late:
                    connection.abort()
        await asyncio.sleep(0)  # What was written last leaves with the end of a pass of the loop.

    def hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Let aiohttp go on with a connection; it begins with a request to upgrade."""
        if self._upgrades is None:
            from haven.apiserver.http.upgrades import Upgrades

            self._upgrades = Upgrades(self.handle, wants_certificates=self.wants_certificates)
        self._upgrades.take(transport, data)

    def _accept(self) -> HttpConnection:
        connection = HttpConnection(self)
        self.handshakes.begun(connection, asyncio.get_running_loop().time())
        return connection

    def _start_sweeping(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close connections whose clients have been silent for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self.connections):
            connection.close_when_silent(now)
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
