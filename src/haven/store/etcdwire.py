"""etcd v3 on the wire: the channel, the requests that the store sends, and what etcd's errors mean.

Revisions of etcd begin at 1 with nothing written, those of Store at 0: `ours` and `theirs` lead from one to the other.
No request is sent twice: a transaction whose answer was lost may have been written.

Source: https://etcd.io/docs/v3.5/learning/api/
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from etcd3aio import _protobuf as wire

from haven.apimachinery.names import Revision
from haven.store.interface import Change, Record, StoreError, StoreFull

__all__ = ["EtcdSettings", "HistoryGone", "Unreachable", "Wire", "change_of", "ours", "record_of", "theirs"]

ALL_KEYS = b"\x00"
_TIMEOUT_SECONDS = 10.0
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class EtcdSettings:
    """Where etcd is: addresses such as https://10.0.0.1:2379, and the files that prove who is who."""

    servers: tuple[str, ...]
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    compaction_seconds: float = 300.0
    """How long history is kept; 0 leaves compaction to others."""


class HistoryGone(Exception):
    """etcd has compacted the revision asked for."""


class Unreachable(StoreError):
    """etcd gave no answer."""


def ours(revision: int) -> Revision:
    """Return the store's revision for etcd's."""
    return Revision(revision - 1)


def theirs(revision: int) -> int:
    """Return etcd's revision for the store's."""
    return revision + 1


def record_of(pair: Any) -> Record:
    """Return a record for a key and its value."""
    return Record(pair.key, pair.value, ours(pair.create_revision), ours(pair.mod_revision))


def change_of(event: Any) -> Change:
    """Return a change for an event that carries the previous value."""
    pair = event.kv
    previous = record_of(event.prev_kv) if event.HasField("prev_kv") else None
    revision = ours(pair.mod_revision)
    if event.type == 0:  # PUT
        return Change(pair.key, pair.value, previous, revision, ours(pair.create_revision))
    return Change(pair.key, None, previous, revision, previous.created if previous is not None else revision)


class Wire:
    """A connection to an etcd cluster; gRPC reconnects it and spreads requests over the members."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._servers = ", ".join(settings.servers)
        self._channel = _channel(settings)
        self._kv: Any = wire.KVStub(self._channel)
        self._watch: Any = wire.WatchStub(self._channel)
        self._lease: Any = wire.LeaseStub(self._channel)

    async def close(self) -> None:
        """End all calls."""
        await self._channel.close()

    async def connect(self) -> int:
        """Return etcd's newest revision; raise Unreachable."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._channel.channel_ready()
        except TimeoutError:
            raise Unreachable(
                f"etcd at {self._servers} does not answer: check that it runs and that its certificates are trusted"
            ) from None
        return await self.newest()

    async def newest(self) -> int:
        """Return the revision that no acknowledged write anywhere is above."""
        request = wire.RangeRequest(key=ALL_KEYS, limit=1, keys_only=True)
        return int((await self._call(self._kv.Range, request)).header.revision)

    async def range(self, first: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Any:
        """Return etcd's answer; raise HistoryGone."""
        request = wire.RangeRequest(key=first, range_end=end, limit=limit, revision=revision)
        return await self._call(self._kv.Range, request)

    async def transact(self, compares: Sequence[Any], then: Sequence[Any], otherwise: Sequence[Any]) -> Any:
        """Return etcd's answer to a transaction."""
        return await self._call(self._kv.Txn, wire.TxnRequest(compare=compares, success=then, failure=otherwise))

    async def compact(self, revision: int) -> None:
        """Forget what is older; raise HistoryGone if it is forgotten already."""
        await self._call(self._kv.Compact, wire.CompactionRequest(revision=revision))

    async def grant(self, seconds: int) -> int:
        """Return a new lease."""
        return int((await self._call(self._lease.LeaseGrant, wire.LeaseGrantRequest(TTL=seconds))).ID)

    async def events(self, first: bytes, end: bytes, start: int) -> AsyncIterator[Any]:
        """Yield etcd's answers to a watch from a revision on; raise HistoryGone with the oldest revision held."""
        call = self._watch.Watch()
        request = wire.WatchCreateRequest(key=first, range_end=end, start_revision=start, prev_kv=True)
        try:
            await call.write(wire.WatchRequest(create_request=request))
            async for answer in call:
                if answer.canceled:
                    if answer.compact_revision:
                        raise HistoryGone(answer.compact_revision)
                    raise Unreachable(f"etcd at {self._servers} ended a watch: {answer.cancel_reason}")
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        finally:
            call.cancel()
        raise Unreachable(f"etcd at {self._servers} ended a watch")

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    def _failure(self, error: grpc.aio.AioRpcError) -> Exception:
        details = error.details() or error.code().name
        if error.code() is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
            return HistoryGone(0)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in details:
            return StoreFull("etcd's space quota is used up: compact and defragment it, then disarm its alarm")
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            return Unreachable(f"etcd at {self._servers} does not answer: {details}")
        if "too many operations in txn" in details:
            details += ": start etcd with a larger --max-txn-ops"
        return StoreError(f"etcd at {self._servers}: {details}")


def _channel(settings: EtcdSettings) -> grpc.aio.Channel:
    places = [urlsplit(server if "//" in server else f"//{server}") for server in settings.servers]
    if not places or any(place.hostname is None for place in places):
        raise StoreError("etcd has no address: give one such as https://127.0.0.1:2379")
    schemes = {place.scheme or "http" for place in places}
    if len(schemes) > 1:
        raise StoreError("etcd's addresses are to be all http or all https")
    options: list[tuple[str, Any]] = [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.enable_retries", 0),
    ]
    target = _target([(str(place.hostname), place.port or 2379) for place in places])
    if schemes != {"https"}:
        return grpc.aio.insecure_channel(target, options=options)
    options.append(("grpc.ssl_target_name_override", str(places[0].hostname)))
    try:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=settings.ca_file.read_bytes() if settings.ca_file else None,
            private_key=settings.key_file.read_bytes() if settings.key_file else None,
            certificate_chain=settings.certificate_file.read_bytes() if settings.certificate_file else None,
        )
    except OSError as error:
        raise StoreError(f"cannot read a file for etcd's TLS, {error.filename}: {error.strerror}") from None
    return grpc.aio.secure_channel(target, credentials, options=options)


def _target(places: Sequence[tuple[str, int]]) -> str:
    """Return gRPC's name for some addresses; names of hosts are looked up once."""
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for host, port in places:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise StoreError(f"etcd's host {host} is not known: {error.strerror or error}") from None
        if family == socket.AF_INET6:
            found["ipv6"].append(f"[{address[0]}]:{port}")
        else:
            found["ipv4"].append(f"{address[0]}:{port}")
    kind = "ipv4" if found["ipv4"] else "ipv6"
    return f"{kind}:{','.join(found[kind])}"
