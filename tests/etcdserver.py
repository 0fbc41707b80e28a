"""A real etcd of its own for a test, on free ports of the loopback; with TLS if given certificates."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import free_port

BINARY = shutil.which("etcd")


@dataclass(frozen=True)
class Tls:
    """PEM files: the authority of both sides, and the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


@dataclass
class Etcd:
    """One member. Its data outlives `stop` and `kill`."""

    folder: Path
    tls: Tls | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it may not answer yet."""
        assert BINARY is not None, "etcd is missing: apt install etcd-server"
        self.port = self.port or free_port()
        peer = f"http://127.0.0.1:{free_port()}"
        words = [
            BINARY, "--name", "one", "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", self.address, "--advertise-client-urls", self.address,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}",
            "--max-txn-ops", "10000", "--heartbeat-interval", "10", "--election-timeout", "100",
            "--log-level", "error",
        ]  # fmt: skip
        if self.tls is not None:
            words += [
                "--client-cert-auth", "--trusted-ca-file", str(self.tls.authority),
                "--cert-file", str(self.tls.certificate), "--key-file", str(self.tls.key),
            ]  # fmt: skip
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    async def stop(self) -> None:
        """End it in good order."""
        await self._end("terminate")

    async def kill(self) -> None:
        """End it at once."""
        await self._end("kill")

    async def _end(self, how: str) -> None:
        if self.process is not None:
            getattr(self.process, how)()
            await asyncio.to_thread(self.process.wait)
            self.process = None
