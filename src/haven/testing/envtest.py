"""The programs that Go's envtest starts (etcd, kube-apiserver), played by Haven: a cluster for each suite.

envtest looks for them in KUBEBUILDER_ASSETS, starts etcd and waits for /health, then starts kube-apiserver with files
of keys and certificates that it has made, and waits for /healthz. Here etcd only says that it is well, and
kube-apiserver is a whole cluster in memory.
Source: https://book.kubebuilder.io/reference/envtest and controller-runtime's testing/controlplane.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["main", "write_assets"]

CONTROLLERS = "HAVEN_ENVTEST_CONTROLLERS"
PROGRAMS = ("etcd", "kube-apiserver")
PARENT_SECONDS = 0.5
HELP = """{program}, played by Haven for tests. Flags are taken as upstream's; those without a meaning here do nothing.
  --advertise-address --allow-privileged --authorization-mode --bind-address --cert-dir --client-ca-file
  --disable-admission-plugins --etcd-servers --secure-port --service-account-issuer --service-cluster-ip-range
  --listen-client-urls --data-dir
"""


def write_assets(folder: Path, *, controllers: bool = True) -> dict[str, str]:
    """Write the programs into a folder; return the environment that makes envtest use them."""
    environment = {"KUBEBUILDER_ASSETS": str(folder)}
    for program in PROGRAMS:
        path = folder / (f"{program}.cmd" if sys.platform == "win32" else program)
        if sys.platform == "win32":
            run = f'"{sys.executable}" -m haven.testing.envtest {program} %*'
            text = f"@set {CONTROLLERS}={int(controllers)}\r\n@{run}\r\n"
        else:
            text = (
                f"#!/bin/sh\n{CONTROLLERS}={int(controllers)} exec {shlex.quote(sys.executable)} "
                f'-m haven.testing.envtest {program} "$@"\n'
            )
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        environment[f"TEST_ASSET_{program.replace('-', '_').upper()}"] = str(path)
    kubectl = shutil.which("kubectl")
    if kubectl is not None:
        link = folder / Path(kubectl).name
        if Path(kubectl) != link:
            link.unlink(missing_ok=True)
            link.symlink_to(kubectl)
        environment["TEST_ASSET_KUBECTL"] = str(link)
    return environment


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Return flags by name; the last of a repeated one counts, and --name value is as good as --name=value."""
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        flags[name] = value
    return flags


def main(arguments: Sequence[str]) -> int:
    """Play a program until a signal comes, or whoever started it ends."""
    program, *rest = arguments
    flags = parse_flags(rest)
    if "help" in flags or "h" in flags:
        print(HELP.format(program=program))
        return 0
    if program == "etcd":
        _play_etcd(flags)
    else:
        asyncio.run(_play_apiserver(flags))
    return 0


def _play_etcd(flags: Mapping[str, str]) -> None:
    url = urlsplit(flags.get("listen-client-urls", "http://127.0.0.1:2379").split(",")[0])
    server = ThreadingHTTPServer((url.hostname or "127.0.0.1", url.port or 2379), _Health)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    parent = os.getppid()
    while not stopping.wait(PARENT_SECONDS):
        if sys.platform != "win32" and os.getppid() != parent:
            break
    server.shutdown()
    server.server_close()


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"health":"true","reason":""}'
        self.send_response(200 if self.path.startswith("/health") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: envtest asks every hundred milliseconds."""


async def _play_apiserver(flags: Mapping[str, str]) -> None:
    from haven.testing.world import Options, World

    options = Options(
        host=flags.get("bind-address", "127.0.0.1"),
        port=int(flags.get("secure-port", "6443")),
        controllers=os.environ.get(CONTROLLERS, "1") != "0",
        tls=_serving(flags),
        client_authority_pem=_read(flags.get("client-ca-file", "")),
    )
    world = World(options)
    await world.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows ends a program without asking.
            loop.add_signal_handler(number, stopping.set)
    parent = os.getppid()
    while not stopping.is_set() and (sys.platform == "win32" or os.getppid() == parent):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARENT_SECONDS):
                await stopping.wait()
    await world.stop()


def _serving(flags: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return TLS with the certificate that envtest has made, None if it has not."""
    folder = Path(flags.get("cert-dir", "."))
    certificate = Path(flags.get("tls-cert-file") or folder / "apiserver.crt")
    key = Path(flags.get("tls-private-key-file") or folder / "apiserver.key")
    if not (certificate.exists() and key.exists()):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    authority = flags.get("client-ca-file")
    if authority:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _read(path: str) -> bytes:
    return Path(path).read_bytes() if path else b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
