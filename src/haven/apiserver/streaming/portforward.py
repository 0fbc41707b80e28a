"""Port-forward for WebSocket clients: either SPDY tunnelled in messages, or two channels a port."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from haven.apiserver.streaming.session import Session
from haven.client.upgrade import Upgraded
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web
else:
    aiohttp = deferred("aiohttp")

__all__ = ["CHANNEL_PROTOCOLS", "TUNNEL_PROTOCOL", "relay_channels", "tunnel"]

TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io")
_PORT = struct.Struct("<H")


class _Tunnel(asyncio.Protocol):
    """What the node sends goes into messages, in order, no faster than the client takes them."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait(data)
        if self.received.qsize() > 64:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.received.put_nowait(None)


async def tunnel(socket: web.WebSocketResponse, upgraded: Upgraded) -> None:
    """Carry the bytes of a SPDY connection in binary messages until either side ends."""
    transport = upgraded.transport
    pipe = _Tunnel(transport)
    transport.set_protocol(pipe)
    if upgraded.early:
        pipe.data_received(upgraded.early)
    transport.resume_reading()

    async def down() -> None:
        while (data := await pipe.received.get()) is not None:
            await socket.send_bytes(data)
            if pipe.received.qsize() < 32 and not transport.is_closing():
                transport.resume_reading()
        await socket.close()

    async def up() -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY and not transport.is_closing():
                transport.write(message.data)

    await _first_of(up(), down())
    transport.close()


async def relay_channels(socket: web.WebSocketResponse, session: Session, ports: Sequence[int]) -> None:
    """Serve the old protocol: channel 2i carries port i's data, 2i+1 its errors; both begin with the port's number."""
    text = (socket.ws_protocol or "").startswith("v4.base64")
    outgoing: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
    streams: dict[int, int] = {}

    def receiver(channel: int) -> Callable[[bytes, bool], None]:
        def receive(data: bytes, fin: bool) -> None:
            if data:
                outgoing.put_nowait((channel, data))
            if fin and channel % 2 == 0:
                outgoing.put_nowait(None)

        return receive

    for index, port in enumerate(ports):
        for offset in (0, 1):
            outgoing.put_nowait((2 * index + offset, _PORT.pack(port)))
        headers = {"port": str(port), "requestID": str(index)}
        errors = session.open({"streamType": "error", **headers}, receiver(2 * index + 1))
        await session.send(errors, b"", fin=True)
        streams[2 * index] = session.open({"streamType": "data", **headers}, receiver(2 * index))

    async def down() -> None:
        ended = 0
        while ended < len(ports):
            item = await outgoing.get()
            if item is None:
                ended += 1
                continue
            channel, data = item
            await socket.send_bytes(bytes((channel,)) + data)
        await socket.close()

    async def up() -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY and message.data and message.data[0] in streams:
                await session.send(streams[message.data[0]], message.data[1:])

    assert not text, "base64 channels are refused before"
    await _first_of(up(), down())
    session.close()


async def _first_of(*works: object) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
