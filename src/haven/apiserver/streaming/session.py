"""A SPDY connection to a node, from the client's side: open streams, send, receive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from haven.client import spdy
from haven.client.upgrade import Upgraded

__all__ = ["Session"]

OnData = Callable[[bytes, bool], None]
_WATER_MARK_BYTES = 256 * 1024


class Session(asyncio.Protocol):
    """Several streams over one connection. `closed` is set when the peer is gone."""

    def __init__(self, upgraded: Upgraded) -> None:
        self.closed = asyncio.Event()
        self._transport = upgraded.transport
        self._reader = spdy.Reader()
        self._writer = spdy.Writer(client=True)
        self._receivers: dict[int, OnData] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport.set_write_buffer_limits(high=_WATER_MARK_BYTES)
        self._transport.set_protocol(self)
        if upgraded.early:
            self.data_received(upgraded.early)
        self._transport.resume_reading()

    def open(self, headers: Mapping[str, str], receive: OnData) -> int:
        """Open a stream; `receive(data, fin)` is called for what comes back, fin=True exactly once at the end."""
        stream, frame = self._writer.open(headers)
        self._receivers[stream] = receive
        self._send(frame)
        return stream

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Send bytes on a stream, waiting while the connection is full; after the peer is gone, do nothing."""
        self._send(self._writer.data(stream, data, fin=fin))
        await self._writable.wait()

    def reset(self, stream: int) -> None:
        """End a stream both ways."""
        self._receivers.pop(stream, None)
        self._send(self._writer.reset(stream))

    def pause(self) -> None:
        """Take nothing more from the peer for now."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection."""
        self._send(self._writer.go_away())
        self._transport.close()

    def _send(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame)

    # What the transport tells

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except spdy.Malformed:
            self._transport.close()

    def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Data(stream, data, fin):
                receive = self._receivers.get(stream)
                if receive is not None:
                    if fin:
                        del self._receivers[stream]
                    receive(data, fin)
            case spdy.Reset(stream, _):
                self._end(stream)
            case spdy.StreamAnswered(stream, True):
                self._end(stream)
            case spdy.Ping(id) if id % 2 == 0:
                self._send(self._writer.ping(id))
            case spdy.StreamOpened(stream, _, _):
                self._send(self._writer.reset(stream, status=3))  # Refused: no node opens streams to us.
            case _:
                pass

    def _end(self, stream: int) -> None:
        receive = self._receivers.pop(stream, None)
        if receive is not None:
            receive(b"", True)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._writable.set()
        for stream in tuple(self._receivers):
            self._end(stream)
