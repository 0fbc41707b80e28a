"""An API server on its own, for trying it out: `python -m haven.apiserver --data DIR --port N --token-file FILE`.

Makes an authority, a serving certificate and a signing key in DIR, and prints a kubeconfig for the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import ssl
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

_KUBECONFIG = """apiVersion: v1
kind: Config
clusters:
- name: haven
  cluster: {{server: "https://{host}:{port}", insecure-skip-tls-verify: true}}
users:
- name: admin
  user: {{token: "{token}"}}
contexts:
- name: haven
  context: {{cluster: haven, user: admin}}
current-context: haven
"""


async def serve(arguments: argparse.Namespace, files: Future[tuple[Path, Path, Path]]) -> None:
    """Serve until a signal comes."""
    from haven.apiserver import assembly, garbage, laterimports
    from haven.apiserver.authentication.statictokens import parse_token_file
    from haven.apiserver.authentication.tokenkeys import SigningKeys
    from haven.apiserver.flags import with_flags
    from haven.apiserver.settings import Settings
    from haven.store.sqlite import SqliteStore

    data = Path(arguments.data)
    tokens = parse_token_file(Path(arguments.token_file).read_text(encoding="utf-8")) if arguments.token_file else {}
    certificate, key, signing_key = await asyncio.wrap_future(files)
    tls = None
    if not arguments.plain:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
    store = await SqliteStore.open(data / "store.db")
    settings = with_flags(Settings(host=arguments.host, port=arguments.port), arguments.flags)
    trust = assembly.Trust(SigningKeys(signing_key.read_bytes()), static_tokens=tokens, tls=tls)
    server = await assembly.start(settings, store, trust)
    garbage.settle()
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    token = next(iter(tokens), "")
    print(_KUBECONFIG.format(host=arguments.host, port=server.port, token=token), flush=True)
    server.keep(laterimports.imported_rest(), "later-imports")
    await done.wait()
    await server.stop()
    await store.close()


def _begin_files(arguments: argparse.Namespace) -> Future[tuple[Path, Path, Path]]:
    """Make keys and certificates in a thread, as that takes as long as to import the rest."""
    from haven.apiserver.devpki import serving_files

    found: Future[tuple[Path, Path, Path]] = Future()

    def make() -> None:
        try:
            data = Path(arguments.data)
            data.mkdir(parents=True, exist_ok=True)
            found.set_result(serving_files(data, [arguments.host, "localhost", "kubernetes.default.svc"]))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=make, name="keys", daemon=True).start()
    return found


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m haven.apiserver", description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-file")
    parser.add_argument("--plain", action="store_true", help="no TLS")
    parser.add_argument("--log-level", default="info")
    arguments, rest = parser.parse_known_args()
    arguments.flags = {
        name.removeprefix("--"): value or "true" for name, _, value in (one.partition("=") for one in rest)
    }
    gc.disable()  # Until all is made: nothing of it is garbage.
    files = _begin_files(arguments)

    import uvloop

    from haven import telemetry

    telemetry.configure(level=arguments.log_level, stream=sys.stderr)
    uvloop.run(serve(arguments, files))


if __name__ == "__main__":
    main()
