"""The node's end of exec, attach and port-forward: SPDY streams that a client opened, for Python code to answer.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (connect operations) and the
remote command protocol v4 of Kubernetes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from haven.client import spdy

__all__ = ["REMOTE_PROTOCOLS", "Session", "Stream", "choose_protocol", "exit_status", "take_over"]

REMOTE_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
OPEN_SECONDS_MAX = 10.0
BUFFER_BYTES_MAX = 4 * 1024 * 1024


class Stream:
    """One stream of a session: a StreamReader for what comes, `write` and `close` for what goes."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.reader = asyncio.StreamReader(limit=BUFFER_BYTES_MAX)
        self._session = session
        self._number = number
        self._is_open = True

    @property
    def kind(self) -> str:
        """stdin, stdout, stderr, error, resize or data."""
        return self.headers.get("streamtype", "")

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._is_open and data:
            self._session.send(self._number, data)

    async def drain(self) -> None:
        """Wait while the connection is full."""
        await self._session.wait_writable()

    def close(self) -> None:
        """Send no more."""
        if self._is_open:
            self._is_open = False
            self._session.send(self._number, b"", fin=True)


class Session(asyncio.Protocol):
    """A connection that a client upgraded. `closed` is set when it is gone."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.closed = asyncio.Event()
        self.opened: asyncio.Queue[Stream] = asyncio.Queue()
        self._transport = transport
        self._reader = spdy.Reader()
        self._writer = spdy.Writer(client=False)
        self._streams: dict[int, Stream] = {}
        self._writable = asyncio.Event()
        self._writable.set()

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._writer.data(stream, data, fin=fin))

    async def wait_writable(self) -> None:
        await self._writable.wait()

    def close(self) -> None:
        """End the connection once everything is sent."""
        if not self._transport.is_closing():
            self._transport.write(self._writer.go_away())
            self._transport.close()

    async def streams(self, kinds: Sequence[str]) -> dict[str, Stream]:
        """Return the streams of these kinds once all are open; raise TimeoutError."""
        found: dict[str, Stream] = {}
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            while not all(kind in found for kind in kinds):
                stream = await self.opened.get()
                found[stream.kind] = stream
        return found

    # What the transport tells

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except spdy.Malformed:
            self._transport.close()

    def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.StreamOpened(number, headers, fin):
                stream = self._streams[number] = Stream(self, number, headers)
                self._transport.write(self._writer.reply(number))
                if fin:
                    stream.reader.feed_eof()
                self.opened.put_nowait(stream)
            case spdy.Data(number, data, fin):
                known = self._streams.get(number)
                if known is not None:
                    if data:
                        known.reader.feed_data(data)
                    if fin:
                        known.reader.feed_eof()
            case spdy.Reset(number, _):
                gone = self._streams.pop(number, None)
                if gone is not None:
                    gone.reader.feed_eof()
            case spdy.Ping(id):
                self._transport.write(self._writer.ping(id))
            case _:
                pass

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams.values():
            stream.reader.feed_eof()
        self.closed.set()
        self._writable.set()


def choose_protocol(offered: Sequence[str], known: Sequence[str]) -> str:
    """Return the first of the known protocols that is offered, "" if none is."""
    words = [word.strip() for text in offered for word in text.split(",")]
    return next((protocol for protocol in known if protocol in words), "")


def take_over(transport: Any, protocol: str) -> Session:
    """Answer 101 on an HTTP connection and make a session of it."""
    head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    if protocol:
        head += f"X-Stream-Protocol-Version: {protocol}\r\n"
    session = Session(transport)
    transport.set_protocol(session)
    transport.write(f"{head}\r\n".encode())
    return session


def exit_status(code: int) -> dict[str, Any]:
    """Return what the error stream says at the end of a command (protocol v4)."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
