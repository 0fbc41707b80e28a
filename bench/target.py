"""A server under test: how to ask it, and what its processes use."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Requests", "Target", "trusting"]

_TICKS = os.sysconf("SC_CLK_TCK")


def trusting() -> ssl.SSLContext:
    """Return a context that believes any server: they are all on this machine and made a moment ago."""
    return ssl._create_unverified_context()


@dataclass(frozen=True)
class Target:
    """A server, the token that may do everything on it, and its processes by name (none if it is somebody else's)."""

    name: str
    host: str
    port: int
    token: str = ""
    pids: tuple[tuple[str, int], ...] = ()
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float = 60.0,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Ask once, on a connection of its own."""
        connection = http.client.HTTPSConnection(self.host, self.port, context=self.tls or trusting(), timeout=timeout)
        headers = {"Content-Type": content_type}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def resident_mb(self, *names: str) -> float:
        """Return what the processes (or those of these names) hold in memory together."""
        return sum(_resident_mb(pid) for name, pid in self.pids if not names or name in names)

    def cpu_seconds(self) -> float:
        """Return how much processor time the processes have used."""
        return sum(_cpu_seconds(pid) for _, pid in self.pids)

    def wait_quiet(self, *, seconds_max: float = 60.0, share_max: float = 0.05) -> None:
        """Return once the processes have had nothing to do for two seconds (under 5 % of a core)."""
        deadline = time.monotonic() + seconds_max
        while self.pids and time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(2.0)
            if self.cpu_seconds() - before < share_max * 2.0:
                return


def _resident_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Requests:
    """Many requests over a few connections that are kept, for what wrk cannot do."""

    def __init__(self, target: Target, connections: int) -> None:
        self._target = target
        self._connections = connections

    async def send_all(self, requests: Iterable[tuple[str, str, Any]]) -> None:
        """Send (method, path, body) each once, as fast as the server answers; raise if one is refused."""
        waiting = iter(requests)

        async def shared() -> AsyncIterator[tuple[str, str, Any]]:
            for each in waiting:
                yield each

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self.send_each(shared()))

    async def send_each(self, waiting: AsyncIterator[tuple[str, str, Any]]) -> None:
        """Send requests one after the other, on a connection of their own."""
        target = self._target
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=trusting())
        try:
            async for method, path, body in waiting:
                data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer {target.token}\r\n"
                    "User-Agent: bench\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                status, answer = await _read_answer(reader)
                if status >= 300:
                    raise RuntimeError(f"{target.name}: {method} {path}: {status} {answer[:300]!r}")
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = re.search(rb"content-length: (\d+)", head)
    if length is not None:
        return status, await reader.readexactly(int(length.group(1)))
    parts = []
    while size := int(await reader.readline(), 16):  # Chunks.
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return status, b"".join(parts)
