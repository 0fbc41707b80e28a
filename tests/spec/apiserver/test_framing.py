"""What arrives on a connection may be no HTTP at all: it is refused, never the server's fault, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import Settings
from haven.store.memory import MemoryStore

SECONDS_MAX = 120
QUIET_SECONDS = 0.5  # Who has not answered by then is not waited for: most of these are no whole requests.
MAPS = b"/api/v1/namespaces/default/configmaps"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n0\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
HOST = b"Host: x\r\nAuthorization: Bearer t\r\n"
POST = b"POST " + MAPS + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
BODY = b'{"metadata":{"generateName":"a"}}'
ODD = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "many empty lines": b"\r\n" * 2000,
    "no protocol": b"GET /version\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS where none is": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "bytes": bytes(range(256)) * 8,
    "a method of any kind": b"F\xc3\xb6\xc3\xb6 / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long method": b"A" * 20_000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version to come": b"GET /version HTTP/9.9\r\nHost: x\r\n\r\n",
    "no version number": b"GET /version HTTP/x.y\r\nHost: x\r\n\r\n",
    "a path that is none": b"GET version HTTP/1.1\r\nHost: x\r\n\r\n",
    "a whole address": b"GET http://elsewhere.example/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "an address that is none": b"GET http://[::1/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path beyond all limits": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "escapes that are none": b"GET /api/%zz/%/%c3%28/%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "steps upwards": b"GET /api/v1/../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "escaped steps upwards": b"GET /api/v1/namespaces/%2e%2e%2f%2e%2e%2fx HTTP/1.1\r\n" + HOST + b"\r\n",
    "a query of separators": b"GET " + MAPS + b"?&&==&%&=%zz&limit=&limit HTTP/1.1\r\n" + HOST + b"\r\n",
    "a query of many words": b"GET " + MAPS + b"?" + b"a=b&" * 1500 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without a colon": b"GET /version HTTP/1.1\r\nHost x\r\n\r\n",
    "a header without a name": b"GET /version HTTP/1.1\r\n: x\r\n\r\n",
    "a header with a zero": b"GET /version HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "a header on two lines": b"GET /version HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a header of any bytes": b"GET /version HTTP/1.1\r\nHost: x\r\nA: \xff\xfe\x80\r\n\r\n",
    "a user of any bytes": b"GET /version HTTP/1.1\r\n" + HOST + b"Impersonate-User: \xff\xfe\r\n\r\n",
    "a long header": b"GET /version HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /version HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "known headers of any bytes": b"GET " + MAPS + b" HTTP/1.1\r\n" + HOST + b"User-Agent: \xff\r\nAudit-ID: \xfe\r\n"
    + b"Accept: \xfd\r\nImpersonate-Group: \xfc\r\nImpersonate-User: x\r\n"
    + b"Impersonate-Extra-\x41: \xfb\r\nOrigin: \xfa\r\n\r\n",
    "a media type of any bytes": POST + b"Content-Type: \xff\r\nContent-Length: 2\r\n\r\n{}",
    "a path of any bytes": b"GET " + MAPS + b"/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "an escaped path of any bytes": b"GET " + MAPS + b"/%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a query of any bytes": b"GET " + MAPS + b"?labelSelector=\xff&fieldManager=%ff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a manager of any bytes": b"POST " + MAPS + b"?fieldManager=\xff\xfe HTTP/1.1\r\n" + HOST
    + b"Content-Length: 33\r\n\r\n" + BODY,
    "many groups": b"GET /version HTTP/1.1\r\n" + HOST + b"Impersonate-Group: b\r\n" * 50 + b"\r\n",
    "no host": b"GET /version HTTP/1.1\r\n\r\n",
    "odd credentials": b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n",
    "credentials of any bytes": b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\xff\r\n\r\n",
    "basic credentials": b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Basic !!!\r\n\r\n",
    "an odd media type": POST + b"Content-Type: ;;;=\r\nContent-Length: 2\r\n\r\n{}",
    "odd wishes": b"GET " + MAPS + b" HTTP/1.1\r\n" + HOST + b"Accept: ;q=x,/;*\r\nAccept-Encoding: gzip;q=z\r\n\r\n",
    "no length": POST + b"\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length that is none": POST + b"Content-Length: two\r\n\r\n" + BODY,
    "a length beyond all numbers": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 33\r\n\r\n" + BODY,
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n" + BODY + END,
    "less than was said": POST + b"Content-Length: 500\r\n\r\n" + BODY,
    "more than was said": POST + b"Content-Length: 2\r\n\r\n" + BODY,
    "chunks": POST + CHUNKED + b"21\r\n" + BODY + END,
    "a chunk that is no number": POST + CHUNKED + b"zz\r\n" + BODY + END,
    "a negative chunk": POST + CHUNKED + b"-21\r\n" + BODY + END,
    "a chunk beyond all numbers": POST + CHUNKED + b"f" * 40 + b"\r\n" + BODY,
    "a chunk that goes on": POST + CHUNKED + b"5\r\n" + BODY + END,
    "a chunk that ends early": POST + CHUNKED + b"500\r\n" + BODY,
    "long words about a chunk": POST + CHUNKED + b"21;" + b"a" * 100_000 + b"\r\n" + BODY + END,
    "many small chunks": POST + CHUNKED + b"1\r\n \r\n" * 3000 + b"0\r\n\r\n",
    "words behind the chunks": POST + CHUNKED + b"21\r\n" + BODY + b"\r\n0\r\nA: b\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n21\r\n" + BODY + END,
    "a coding that is none": POST + b"Transfer-Encoding: nonsense\r\nContent-Length: 33\r\n\r\n" + BODY,
    "a body that is said to be packed": POST + b"Content-Encoding: gzip\r\nContent-Length: 33\r\n\r\n" + BODY,
    "a body packed as nobody knows": POST + b"Content-Encoding: nonsense\r\nContent-Length: 33\r\n\r\n" + BODY,
    "a body of a reading request": b"GET " + MAPS + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 33\r\n\r\n" + BODY,
    "a body above the limit": POST + b"Content-Length: 200000\r\n\r\n" + b" " * 200_000,
    "chunks above the limit": POST + CHUNKED + b"4000\r\n" + b" " * 0x4000 + b"\r\n" * 9,
    "waiting for a word": POST + b"Expect: 100-continue\r\nContent-Length: 33\r\n\r\n" + BODY,
    "waiting for another word": POST + b"Expect: nonsense\r\nContent-Length: 33\r\n\r\n" + BODY,
    "an upgrade to nothing": b"GET /version HTTP/1.1\r\n" + HOST + UPGRADE + b"nonsense\r\n\r\n",
    "an upgrade of a list": b"GET " + MAPS + b" HTTP/1.1\r\n" + HOST + UPGRADE + b"websocket\r\n\r\n",
    "a socket without a key": b"GET /api/v1/namespaces/default/pods/a/exec?command=x HTTP/1.1\r\n" + HOST
    + UPGRADE + b"websocket\r\nSec-WebSocket-Version: 99\r\n\r\n",
    "an upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 33\r\n\r\n" + BODY,
    "half a request": b"GET /version HTTP/1.1\r\nHo",
    "pipelined requests": b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 40,
    "a request behind a broken one": b"GET / HTTP/1.1\r\nA\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n",
    "a request inside a body": POST + b"Content-Length: 41\r\n\r\nGET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n",
}  # fmt: skip


@dataclass
class Served:
    """A listening server, and what went wrong inside it."""

    port: int
    server: assembly.ApiServer
    troubles: list[dict[str, Any]] = field(default_factory=list)

    async def say(self, data: bytes, *, pause: int = 0, answers: int = 0, and_ends: bool = False) -> bytes:
        """Send bytes, at once or a few at a time, and return what comes back: so many answers, or until it is quiet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(SECONDS_MAX):
                heard = bytearray()
                reading = asyncio.ensure_future(_read_all(reader, heard))
                with contextlib.suppress(ConnectionError):  # It may have heard enough before the end.
                    step = pause or len(data) or 1
                    for start in range(0, len(data), step):
                        writer.write(data[start : start + step])
                        await writer.drain()
                    if and_ends:
                        writer.write_eof()
                if answers:
                    while len(statuses(heard)) < answers:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                else:
                    await asyncio.wait({reading}, timeout=QUIET_SECONDS)
                reading.cancel()
                return bytes(heard)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def check(self) -> None:
        """Assert that it answers as before, and that nothing inside went wrong."""
        answer = await self.say(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", answers=1)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert not self.troubles, self.troubles

    async def wait_rest(self, tasks: int) -> None:
        """Return once no more tasks run than before."""
        async with asyncio.timeout(SECONDS_MAX):
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def _read_all(reader: asyncio.StreamReader, heard: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            heard += part


def statuses(answer: bytes | bytearray) -> list[int]:
    """Return the statuses of the answers in what came back."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def is_fair(answer: bytes) -> bool:
    """Whether nothing of an answer says that the server is at fault."""
    return all(status < 500 or status == 505 for status in statuses(answer)) and b"Traceback" not in answer


@pytest.fixture
async def served(signing_keys: SigningKeys) -> AsyncIterator[Served]:
    store = MemoryStore()
    trust = assembly.Trust(signing_keys, static_tokens={"t": UserInfo("admin", groups=("system:masters",))})
    options = Settings(port=0, serve_kubernetes_service=False, body_bytes_max=100_000)
    server = await assembly.start(options, store, trust)
    served = Served(server.port, server)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: served.troubles.append(context))
    yield served
    await server.stop()
    await store.close()


@pytest.mark.parametrize("and_ends", [False, True])
async def test_whatever_arrives_is_refused_or_ended_and_leaves_nothing(
    served: Served, caplog: pytest.LogCaptureFixture, and_ends: bool
) -> None:
    await served.check()
    tasks = len(asyncio.all_tasks())

    with capture_logs() as logs:
        answers = await asyncio.gather(*(served.say(data, and_ends=and_ends) for data in ODD.values()))
        await served.wait_rest(tasks)

    for name, answer in zip(ODD, answers, strict=True):
        assert is_fair(answer), (name, answer[:2000])
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await served.check()


async def test_what_is_odd_but_right_is_answered(served: Served) -> None:
    tasks = len(asyncio.all_tasks())
    for name, expected in (
        ("chunks", [201]),
        ("words behind the chunks", [201]),
        ("waiting for a word", [100, 201]),
        ("pipelined requests", [200] * 40),
        ("a request inside a body", [400]),
        ("a body of a reading request", [200]),
        ("a query of separators", [400]),
        ("a whole address", [200]),
        ("many empty lines", []),
    ):
        assert statuses(await served.say(ODD[name], answers=len(expected))) == expected, name
    for number in range(0, len(ODD["chunks"]), 9):  # Wherever the network cuts it.
        assert statuses(await served.say(ODD["chunks"], pause=number or 1, answers=1)) == [201]
    await served.check()
    await served.wait_rest(tasks)


@pytest.mark.parametrize("seed", range(3))
async def test_spoiled_requests_are_refused_or_ended(served: Served, seed: int) -> None:
    chance = random.Random(seed)
    whole = [data for data in ODD.values() if 0 < len(data) < 3000]
    tasks = len(asyncio.all_tasks())
    spoiled = [_spoil(chance, chance.choice(whole) + chance.choice(whole)) for _ in range(100)]

    with capture_logs() as logs:
        answers = await asyncio.gather(*(served.say(data, pause=chance.choice([0, 0, 7])) for data in spoiled))
        await served.wait_rest(tasks)

    for data, answer in zip(spoiled, answers, strict=True):
        assert is_fair(answer), (seed, data, answer[:2000])
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    await served.check()


def _spoil(chance: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                data[place:place] = chance.choice([b"\r\n", b"\n", b"\r", b":", b" ", b"\x00", b"%", b"0\r\n\r\n"])
            case _:
                del data[place : place + chance.randrange(8)]
    return bytes(data)


async def test_clients_that_say_nothing_or_little_hold_nobody_up_and_leave_no_memory(served: Served) -> None:
    await served.check()
    tasks, objects = len(asyncio.all_tasks()), []
    for _ in range(3):
        idle = []
        for _ in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            idle.append(writer)
            writer.write(b"GET /version HTTP/1.1\r\nX: ")
        for writer in idle:
            writer.write(b"a")
        await served.check()
        for writer in idle:
            writer.close()
        await served.wait_rest(tasks)
        gc.collect()
        objects.append(len(gc.get_objects()))
    # The server does other things meanwhile, but not each time as many.
    assert min(objects[1] - objects[0], objects[2] - objects[1]) < 2000, "a hundred connections leave something behind"
