"""SPDY/3.1 frames, as much as Kubernetes speaks: several streams over one connection that was upgraded from HTTP.

Pure: bytes in, frames out, and back. Each direction compresses its header blocks as one zlib stream, with a dictionary
from the specification. There is no flow control: no Kubernetes component sends or heeds window updates.
Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = [
    "Data",
    "Frame",
    "GoAway",
    "Malformed",
    "Ping",
    "Reader",
    "Reset",
    "StreamAnswered",
    "StreamOpened",
    "Writer",
]

VERSION = 3
FRAME_BYTES_MAX = 16 * 2**20 - 1
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8
_FIN = 0x01
_CONTROL = struct.Struct("!HHI")
_DATA = struct.Struct("!II")


class Malformed(ValueError):
    """The peer does not speak SPDY/3.1."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; `fin`: it will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamAnswered:
    """The peer took a stream that was opened here."""

    stream: int
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin`: the last ones in this direction."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over, both ways."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No more streams will be taken."""


Frame = StreamOpened | StreamAnswered | Data | Reset | Ping | GoAway


@cache
def _dictionary() -> bytes:
    return resources.files("haven.client").joinpath("spdy-dictionary.bin").read_bytes()


class Reader:
    """Turns received bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = zlib.decompressobj(zdict=_dictionary())

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now; frames without a meaning here are passed over."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from("!II", self._buffer)
            length = second & 0xFFFFFF
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            flags = second >> 24
            if first & 0x80000000:
                frame = self._control(first, flags, payload)
                if frame is not None:
                    yield frame
            else:
                yield Data(first, payload, bool(flags & _FIN))

    def _control(self, first: int, flags: int, payload: bytes) -> Frame | None:
        if (first >> 16) & 0x7FFF != VERSION:
            raise Malformed(f"SPDY version {(first >> 16) & 0x7FFF}")
        try:
            match first & 0xFFFF:
                case 1:
                    stream = struct.unpack_from("!I", payload)[0] & 0x7FFFFFFF
                    return StreamOpened(stream, self._read_headers(payload[10:]), bool(flags & _FIN))
                case 2:
                    stream = struct.unpack_from("!I", payload)[0] & 0x7FFFFFFF
                    self._read_headers(payload[4:])
                    return StreamAnswered(stream, bool(flags & _FIN))
                case 3:
                    stream, status = struct.unpack("!II", payload)
                    return Reset(stream & 0x7FFFFFFF, status)
                case 6:
                    return Ping(struct.unpack("!I", payload)[0])
                case 7:
                    return GoAway()
                case 8:
                    self._read_headers(payload[4:])  # Must be read all the same: the zlib stream goes on.
        except (struct.error, zlib.error, IndexError) as error:
            raise Malformed(str(error)) from error
        return None

    def _read_headers(self, block: bytes) -> dict[str, str]:
        plain = self._headers.decompress(block, FRAME_BYTES_MAX)
        (count,) = struct.unpack_from("!I", plain)
        position, headers = 4, {}
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from("!I", plain, position)
                texts.append(plain[position + 4 : position + 4 + length].decode("latin-1"))
                position += 4 + length
            headers[texts[0].lower()] = texts[1]
        return headers


class Writer:
    """Turns what is to be said into bytes. Streams of the client have odd numbers, those of the server even ones."""

    def __init__(self, *, client: bool) -> None:
        self._next_stream = 1 if client else 2
        self._headers = zlib.compressobj(zdict=_dictionary())

    def open(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return a new stream's number and the frame that opens it."""
        stream = self._next_stream
        self._next_stream += 2
        payload = struct.pack("!IIBB", stream, 0, 0, 0) + self._write_headers(headers)
        return stream, self._control(_SYN_STREAM, 0, payload)

    def reply(self, stream: int) -> bytes:
        """Return the frame that takes a stream which the peer opened."""
        return self._control(_SYN_REPLY, 0, struct.pack("!I", stream) + self._write_headers({}))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Return bytes of a stream."""
        return _DATA.pack(stream, ((_FIN if fin else 0) << 24) | len(data)) + data

    def reset(self, stream: int, status: int = 5) -> bytes:
        """Return the frame that ends a stream (status 5: cancelled)."""
        return self._control(_RST_STREAM, 0, struct.pack("!II", stream, status))

    def ping(self, id: int) -> bytes:
        """Return a ping, or the answer to one."""
        return self._control(_PING, 0, struct.pack("!I", id))

    def go_away(self) -> bytes:
        """Return the frame that says that no more streams are taken."""
        return self._control(_GOAWAY, 0, struct.pack("!II", 0, 0))

    def _control(self, type: int, flags: int, payload: bytes) -> bytes:
        return _CONTROL.pack(0x8000 | VERSION, type, (flags << 24) | len(payload)) + payload

    def _write_headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack("!I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += [struct.pack("!I", len(text)), text]
        return self._headers.compress(b"".join(parts)) + self._headers.flush(zlib.Z_SYNC_FLUSH)
