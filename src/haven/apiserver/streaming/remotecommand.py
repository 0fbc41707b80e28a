"""Exec and attach for WebSocket clients: their channels become the streams of a SPDY session with the node.

The node, and the container runtime behind it, only ever see SPDY, which alone lets standard input end while the
output goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haven.apimachinery import apierrors, meta, serialization
from haven.apiserver.streaming import channels
from haven.apiserver.streaming.channels import ERROR, RESIZE, STDERR, STDIN, STDOUT
from haven.apiserver.streaming.session import Session
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web
else:
    aiohttp = deferred("aiohttp")

__all__ = ["Streams", "relay"]

MESSAGES_WAITING_MAX = 64


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams were asked for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


async def relay(socket: web.WebSocketResponse, session: Session, streams: Streams) -> None:
    """Move messages both ways until the command ends or one side goes."""
    protocol = channels.protocol_of(socket.ws_protocol)
    outgoing: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
    open_outputs: set[int] = set()
    outcome = bytearray()

    def receiver(channel: int) -> Callable[[bytes, bool], None]:
        open_outputs.add(channel)

        def receive(data: bytes, fin: bool) -> None:
            if channel == ERROR:
                outcome.extend(data)
            elif data:
                outgoing.put_nowait((channel, data))
                if outgoing.qsize() > MESSAGES_WAITING_MAX:
                    session.pause()
            if fin:
                open_outputs.discard(channel)
                if not open_outputs:
                    outgoing.put_nowait(None)

        return receive

    session.open({"streamType": "error"}, receiver(ERROR))
    numbers: dict[int, int] = {}
    if streams.stdin:
        numbers[STDIN] = session.open({"streamType": "stdin"}, _nothing)
    if streams.stdout:
        session.open({"streamType": "stdout"}, receiver(STDOUT))
    if streams.stderr and not streams.tty:
        session.open({"streamType": "stderr"}, receiver(STDERR))
    if streams.tty:
        numbers[RESIZE] = session.open({"streamType": "resize"}, _nothing)

    async def send_outputs() -> None:
        while (item := await outgoing.get()) is not None:
            await socket.send_bytes(_bytes(protocol.write(*item))) if not protocol.is_text else await socket.send_str(
                _text(protocol.write(*item))
            )
            if outgoing.qsize() <= MESSAGES_WAITING_MAX // 2:
                session.resume()
        last = _outcome(bytes(outcome), protocol)
        if last:
            message = protocol.write(ERROR, last)
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        await socket.close()

    async def take_inputs() -> None:
        async for raw in socket:
            if raw.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                continue
            message = protocol.read(raw.data)
            if message is None or message.channel not in numbers:
                continue
            if message.ends:
                await session.send(numbers[message.channel], b"", fin=True)
            elif message.data:
                await session.send(numbers[message.channel], message.data)

    sending, taking = asyncio.create_task(send_outputs()), asyncio.create_task(take_inputs())
    try:
        await asyncio.wait({sending, taking}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, taking):
            task.cancel()
        await asyncio.gather(sending, taking, return_exceptions=True)
        session.close()


def _nothing(data: bytes, fin: bool) -> None:
    """Input streams bring nothing back."""


def _bytes(message: bytes | str) -> bytes:
    assert isinstance(message, bytes)
    return message


def _text(message: bytes | str) -> str:
    assert isinstance(message, str)
    return message


def _outcome(received: bytes, protocol: channels.Protocol) -> bytes:
    """Return what the outcome's channel says: from v4 on always a Status, before only an error's text."""
    if protocol.tells_status:
        return received or serialization.encode(meta.Status(status="Success"))
    if not received:
        return b""
    try:
        status = serialization.decode(received, meta.Status)
    except ValueError:
        return received
    return b"" if status.status == "Success" else status.message.encode()


def failure(error: apierrors.ApiError) -> bytes:
    """Return a refusal as the outcome's channel tells it."""
    return serialization.encode(error.status())
