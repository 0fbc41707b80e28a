"""Outside names: the query goes to the host's resolvers as it came, one after another, and the answer back.

A probe at the start finds loops: a name that nobody else knows must not come back to us as a query.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Sequence

from haven import telemetry
from haven.dns import wire

__all__ = ["Forwarder"]

_log = telemetry.logger("dns")
TIMEOUT_SECONDS = 2.0
PENDING_MAX = 1000


class Forwarder:
    """Asks resolvers. Each query uses a socket and an id of its own, so that answers are hard to forge."""

    def __init__(self, resolvers: Sequence[str], chance: random.Random, *, port: int = 53) -> None:
        self._resolvers = tuple(resolvers)
        self._chance = chance
        self._port = port
        self._pending = 0
        self.loop_name = wire.name_bytes(f"{chance.getrandbits(63)}.{chance.getrandbits(63)}.loop.haven")
        self.looped = False

    async def ask(self, data: bytes, *, tcp: bool) -> bytes | None:
        """Return an answer with the query's id, None if no resolver answers in time."""
        if self.looped or not self._resolvers or self._pending >= PENDING_MAX:
            return None
        self._pending += 1
        try:
            for resolver in self._resolvers:
                try:
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        reply = await (self._ask_tcp if tcp else self._ask_udp)(resolver, data)
                    return data[:2] + reply[2:]
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
            return None
        finally:
            self._pending -= 1

    async def find_loop(self) -> None:
        """Send the probe; `note` tells whether it came back."""
        query = struct.pack("!HHHHHH", self._chance.getrandbits(16), 0x0100, 1, 0, 0, 0)
        await self.ask(query + self.loop_name + struct.pack("!HH", wire.HINFO, 1), tcp=False)

    def note(self, query: wire.Query) -> bool:
        """Tell whether a query is our own probe that came back; nothing is forwarded from then on."""
        if query.name == self.loop_name and not self.looped:
            self.looped = True
            _log.error(
                "the host's resolver sends queries back to this cluster's DNS; outside names are not resolved",
                resolvers=", ".join(self._resolvers),
                mend="name the real resolvers in /etc/resolv.conf and restart the agent",
            )
        return self.looped and query.name == self.loop_name

    async def _ask_udp(self, resolver: str, data: bytes) -> bytes:
        id = struct.pack("!H", self._chance.getrandbits(16))
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Asking(reply, id), remote_addr=(resolver, self._port)
        )
        try:
            transport.sendto(id + data[2:])
            return await reply
        finally:
            transport.close()

    async def _ask_tcp(self, resolver: str, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(resolver, self._port)
        try:
            writer.write(struct.pack("!H", len(data)) + data)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, reply: asyncio.Future[bytes], id: bytes) -> None:
        self._reply = reply
        self._id = id

    def datagram_received(self, data: bytes, addr: object) -> None:
        if len(data) >= 12 and data[:2] == self._id and not self._reply.done():
            self._reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)
