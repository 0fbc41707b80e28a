"""UDP and TCP: read a query, let the zone or the forwarder answer it."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import cast

from haven import telemetry
from haven.dns import wire
from haven.dns.forward import Forwarder
from haven.dns.zone import Found, Zone

__all__ = ["Resolver", "Server", "Statistics"]

_log = telemetry.logger("dns")
ANSWERS_KEPT_MAX = 10_000
TCP_CONNECTIONS_MAX = 500
TCP_IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot for metrics."""

    queries: int
    forwarded: int
    failed: int
    kept: int


class Resolver:
    """Answers queries. Answers from the zone are kept until the zone changes (`changed`)."""

    def __init__(self, zone: Zone, forwarder: Forwarder) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._kept: dict[tuple[bytes, int], Found] = {}
        self._turn = 0
        self._queries = self._forwarded = self._failed = 0

    def changed(self) -> None:
        """Forget kept answers: Services or endpoints changed."""
        self._kept.clear()

    def statistics(self) -> Statistics:
        return Statistics(self._queries, self._forwarded, self._failed, len(self._kept))

    def answer_now(self, query: wire.Query) -> bytes | None:
        """Return the answer if the zone has it; None if others must be asked."""
        self._queries += 1
        if query.opcode != 0:
            return wire.answer(query, wire.NOTIMP, authoritative=False)
        found = self._kept.get((query.name, query.type))
        if found is None:
            found = self._find(query)
            if found is None:
                return None
            if len(self._kept) >= ANSWERS_KEPT_MAX:
                self._kept.clear()
            self._kept[(query.name, query.type)] = found
        if found.alias and query.type not in (wire.CNAME,):
            return None
        return self._write(query, found)

    async def answer_later(self, query: wire.Query, data: bytes, *, tcp: bool) -> bytes:
        """Return the answer of the host's resolvers, or of the target of an ExternalName."""
        if self._forwarder.note(query):
            return wire.answer(query, wire.REFUSED, authoritative=False)
        found = self._kept.get((query.name, query.type))
        if found is not None and found.alias:
            return await self._follow(query, found)
        self._forwarded += 1
        reply = await self._forwarder.ask(data, tcp=tcp)
        if reply is None:
            self._failed += 1
            return wire.answer(query, wire.SERVFAIL, authoritative=False)
        return reply

    async def _follow(self, query: wire.Query, found: Found) -> bytes:
        """Append what the alias resolves to; the alias alone if that cannot be found out."""
        target = wire.name_bytes(found.alias)
        inner = wire.Query(
            query.id, 0, True, target.lower(), query.type, target + query.question[-4:], wire.UDP_BYTES_MAX, False
        )
        more: list[bytes] = []
        if self._zone.covers(inner.name):
            local = self._zone.find(inner.name, query.type)
            more = [target + item[2:] for item in local.answers if item.startswith(b"\xc0\x0c")]
        else:
            data = struct.pack("!HHHHHH", query.id, 0x0100, 1, 0, 0, 0) + inner.question
            reply = await self._forwarder.ask(data, tcp=False)
            more = _addresses_of(reply, target) if reply else []
        return wire.answer(query, found.rcode, [*found.answers, *more])

    def _find(self, query: wire.Query) -> Found | None:
        if self._zone.covers(query.name):
            return self._zone.find(query.name, query.type)
        if query.name.endswith(b"\x04arpa\x00"):
            return self._zone.find_reverse(wire.name_text(query.name), query.type)
        return None

    def _write(self, query: wire.Query, found: Found) -> bytes:
        answers = found.answers
        if len(answers) > 1:  # Clients take the first address: let every one be first in turn.
            self._turn = (self._turn + 1) % 1_000_000
            cut = self._turn % len(answers)
            answers = (*answers[cut:], *answers[:cut])
        return wire.answer(query, found.rcode, answers, found.authority, found.additional)


def _addresses_of(reply: bytes, target: bytes) -> list[bytes]:
    """Return the address records of a foreign answer under the alias's name; what cannot be read gives none."""
    import dns.exception
    import dns.message

    try:
        message = dns.message.from_wire(reply)
    except dns.exception.DNSException:
        return []
    return [
        wire.address(item.to_text(), rrset.ttl, target)
        for rrset in message.answer
        if rrset.rdtype in (wire.A, wire.AAAA)
        for item in rrset
    ]


class Server:
    """Listens on one address, UDP and TCP."""

    def __init__(self, resolver: Resolver, address: str, port: int = 53) -> None:
        self._resolver = resolver
        self._address = address
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def run(self, *, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled; raises OSError if the address cannot be listened on."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._resolver, self._tasks), local_addr=(self._address, self._port)
        )
        port = transport.get_extra_info("sockname")[1]
        server = await asyncio.start_server(self._serve_tcp, self._address, port)
        self.port = port
        if ready is not None:
            ready.set()
        try:
            async with server:
                await server.serve_forever()
        finally:
            transport.close()
            for task in self._tasks:
                task.cancel()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= TCP_CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_SECONDS):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                try:
                    query = wire.parse_query(data)
                except wire.Malformed:
                    return
                reply = self._resolver.answer_now(query)
                if reply is None:
                    reply = await self._resolver.answer_later(query, data, tcp=True)
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return
        finally:
            self._connections -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, tasks: set[asyncio.Task[None]]) -> None:
        self._resolver = resolver
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            query = wire.parse_query(data)
        except wire.Malformed:
            self._send(wire.error(data, wire.FORMERR), addr)
            return
        reply = self._resolver.answer_now(query)
        if reply is None:
            task = asyncio.get_running_loop().create_task(self._later(query, data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._send(reply if len(reply) <= query.udp_bytes_max else wire.truncated(query), addr)

    async def _later(self, query: wire.Query, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._resolver.answer_later(query, data, tcp=False)
        self._send(reply if len(reply) <= query.udp_bytes_max else wire.truncated(query), addr)

    def _send(self, reply: bytes, addr: tuple[str, int]) -> None:
        if reply and self._transport is not None:
            self._transport.sendto(reply, addr)
