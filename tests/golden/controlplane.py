"""A control plane for the golden replay: API server and controllers, no scheduler, no kubelet, as upstream's recording.

Run as a program: `python tests/golden/controlplane.py DATA_DIR PORT TOKEN`; prints one line when it is ready.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from pathlib import Path

import uvloop

from haven import telemetry
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.devpki import serving_files
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import Settings
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.controllers.manager import ControllerManager
from haven.controllers.settings import Settings as ControllerSettings
from haven.store.sqlite import SqliteStore


async def serve(data: Path, port: int, token: str) -> None:
    """Serve until a signal comes."""
    certificate, key, signing_key = serving_files(data, ["127.0.0.1", "localhost"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    admin = UserInfo("admin", uid="5f3bd2c4-8c3c-4e4e-9d80-6b7d0a2f8f11", groups=("system:masters",))
    trust = assembly.Trust(SigningKeys(signing_key.read_bytes()), static_tokens={token: admin}, tls=tls)
    store = await SqliteStore.open(data / "store.db")
    server = await assembly.start(Settings(port=port), store, trust)

    def client_for(account: str) -> Client:
        groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
        return server.local_client(UserInfo(f"system:serviceaccount:kube-system:{account}", groups=groups))

    informers = SharedInformers(server.local_client())
    settings = ControllerSettings(root_ca_pem=certificate.read_text(encoding="utf-8"))
    controllers = ControllerManager(settings, client_for, informers)
    tasks = [asyncio.ensure_future(informers.run()), asyncio.ensure_future(controllers.run())]
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    print(f"ready {server.port}", flush=True)
    await done.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.stop()
    await store.close()


if __name__ == "__main__":
    telemetry.configure(level="warning", stream=sys.stderr)
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
