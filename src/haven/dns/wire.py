"""DNS messages as bytes: just what a server of one zone needs on every query. Source: RFC 1035, RFC 2782, RFC 6891."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "AAAA",
    "ANY",
    "CNAME",
    "FORMERR",
    "HINFO",
    "NOERROR",
    "NOTIMP",
    "NS",
    "NXDOMAIN",
    "PTR",
    "REFUSED",
    "SERVFAIL",
    "SOA",
    "SRV",
    "TXT",
    "A",
    "Malformed",
    "Query",
    "address",
    "answer",
    "error",
    "name_bytes",
    "name_text",
    "parse_query",
    "record",
    "soa",
    "srv",
    "text",
    "truncated",
]  # fmt: skip

A, NS, CNAME, SOA, PTR, HINFO, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 13, 16, 28, 33, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
CLASS_IN = 1
UDP_BYTES_MIN = 512
UDP_BYTES_MAX = 1232  # What passes every path unfragmented (DNS flag day 2020).

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_QUESTION_POINTER = b"\xc0\x0c"


class Malformed(ValueError):
    """The bytes are no DNS query."""


class Query(NamedTuple):
    """One question. `name` is lower case in wire form; `question` is as it came, to be sent back unchanged."""

    id: int
    opcode: int
    recursion_desired: bool
    name: bytes
    type: int
    question: bytes
    udp_bytes_max: int
    has_edns: bool


def parse_query(data: bytes) -> Query:
    """Read a query with one question; raise Malformed."""
    if len(data) < 17:
        raise Malformed("too short")
    id, flags, questions, _, _, additional = _HEADER.unpack_from(data)
    if flags & 0x8000 or questions != 1:
        raise Malformed("not a query with one question")
    end = 12
    while True:
        if end >= len(data):
            raise Malformed("the name does not end")
        length = data[end]
        if length == 0:
            break
        if length > 63:
            raise Malformed("a compressed or over-long label in a question")
        end += length + 1
    end += 1
    if len(data) < end + 4 or end - 12 > 255:
        raise Malformed("no type, or a name over 255 bytes")
    type, class_ = struct.unpack_from("!HH", data, end)
    if class_ not in (CLASS_IN, ANY):
        raise Malformed("not the Internet class")
    udp_bytes_max, has_edns = UDP_BYTES_MIN, False
    rest = end + 4
    if additional and len(data) >= rest + 11 and data[rest] == 0 and data[rest + 1 : rest + 3] == b"\x00\x29":
        has_edns = True
        udp_bytes_max = max(UDP_BYTES_MIN, min(struct.unpack_from("!H", data, rest + 3)[0], UDP_BYTES_MAX))
    return Query(
        id=id,
        opcode=(flags >> 11) & 15,
        recursion_desired=bool(flags & 0x0100),
        name=data[12:end].lower(),
        type=type,
        question=data[12 : end + 4],
        udp_bytes_max=udp_bytes_max,
        has_edns=has_edns,
    )


def answer(
    query: Query,
    rcode: int,
    answers: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    *,
    authoritative: bool = True,
) -> bytes:
    """Return a whole answer; records come from `record` and its kin."""
    flags = 0x8080 | (0x0400 if authoritative else 0) | (0x0100 if query.recursion_desired else 0) | rcode
    flags |= query.opcode << 11
    edns = (b"\x00\x00\x29" + struct.pack("!HIH", UDP_BYTES_MAX, 0, 0),) if query.has_edns else ()
    header = _HEADER.pack(query.id, flags, 1, len(answers), len(authority), len(additional) + len(edns))
    return b"".join((header, query.question, *answers, *authority, *additional, *edns))


def error(data: bytes, rcode: int) -> bytes:
    """Return an answer to something that could not be read as a query; b"" if not even its id can."""
    if len(data) < 12 or data[2] & 0x80:
        return b""
    return data[:2] + struct.pack("!HHHHH", 0x8080 | rcode, 0, 0, 0, 0)


def truncated(query: Query) -> bytes:
    """Return the answer that sends the client to TCP."""
    message = bytearray(answer(query, NOERROR))
    message[2] |= 0x02
    return bytes(message)


def record(type: int, ttl_seconds: int, data: bytes, name: bytes = _QUESTION_POINTER) -> bytes:
    """Return a resource record, by default of the name that was asked for."""
    return name + _RECORD.pack(type, CLASS_IN, ttl_seconds, len(data)) + data


def address(ip: str, ttl_seconds: int, name: bytes = _QUESTION_POINTER) -> bytes:
    """Return an A or AAAA record."""
    packed = ipaddress.ip_address(ip).packed
    return record(A if len(packed) == 4 else AAAA, ttl_seconds, packed, name)


def srv(port: int, target: bytes, ttl_seconds: int, weight: int) -> bytes:
    """Return an SRV record of priority 0."""
    return record(SRV, ttl_seconds, struct.pack("!HHH", 0, weight, port) + target)


def text(value: str, ttl_seconds: int) -> bytes:
    """Return a TXT record of one string."""
    data = value.encode()
    return record(TXT, ttl_seconds, bytes((len(data),)) + data)


def soa(zone: bytes, serial: int, ttl_seconds: int) -> bytes:
    """Return a zone's SOA, which tells how long a "no" may be kept."""
    data = (
        b"\x02ns\x03dns" + zone + b"\nhostmaster" + zone + struct.pack("!IIIII", serial, 7200, 1800, 86400, ttl_seconds)
    )
    return record(SOA, ttl_seconds, data, zone)


def name_bytes(name: str) -> bytes:
    """Return a name in wire form; the final dot may be left out."""
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"


def name_text(name: bytes) -> tuple[str, ...]:
    """Return the labels of a name in wire form, the leftmost first."""
    labels, position = [], 0
    while name[position]:
        end = position + 1 + name[position]
        labels.append(name[position + 1 : end].decode("latin-1"))
        position = end
    return tuple(labels)
