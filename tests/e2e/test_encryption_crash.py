"""Encryption at rest through kill -9: what was answered is there again, readable with its key, and never in the clear.

A server process with a KMS plugin (gRPC over a unix socket, in this process) is killed and started again; then its file
of keys changes.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from tests.ports import free_port

from haven.apiserver.encryption.wire import annotations_of, bytes_of, decode, encode

MARK = base64.b64encode(b"the-secret-that-nobody-may-see").decode()
READY_SECONDS_MAX = 180.0
_TRUST = ssl._create_unverified_context()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    """A KMS plugin; yields its endpoint."""

    def status(_: bytes, __: Any) -> bytes:
        return encode({1: "v2", 2: "ok", 3: "key-1"})

    def encrypt(body: bytes, _: Any) -> bytes:
        return encode({1: bytes_of(decode(body), 1)[::-1], 2: "key-1", 3: {"a.example.com": b"1"}})

    def decrypt(body: bytes, _: Any) -> bytes:
        assert annotations_of(decode(body), 4) == {"a.example.com": b"1"}
        return encode({1: bytes_of(decode(body), 1)[::-1]})

    methods = {"Status": status, "Encrypt": encrypt, "Decrypt": decrypt}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers),))
    server.add_insecure_port(f"unix:{tmp_path}/kms.sock")
    server.start()
    yield f"unix://{tmp_path}/kms.sock"
    server.stop(None)


@contextmanager
def running(folder: Path, port: int, config: Path) -> Iterator[subprocess.Popen[str]]:
    tokens = folder / "tokens.csv"
    tokens.write_text('t,admin,1,"system:masters"\n')
    command = [sys.executable, "-m", "haven.apiserver", "--data", str(folder / "data"), "--port", str(port)]
    command += ["--token-file", str(tokens), f"--encryption-provider-config={config}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            deadline = time.monotonic() + READY_SECONDS_MAX
            while True:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server is not ready"
                try:
                    if ask(port, "GET", "/readyz")[0] == 200:
                        break
                except OSError:
                    time.sleep(0.1)
            yield process
        finally:
            process.kill()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, str]:
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": "Bearer t", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, context=_TRUST, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


SECRETS = "/api/v1/namespaces/default/secrets"


def test_encrypted_secrets_survive_kill_and_are_never_stored_in_the_clear(tmp_path: Path, plugin: str) -> None:
    config, port = tmp_path / "enc.yaml", free_port()
    kms = {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": plugin, "timeout": "60s"}}
    box = {"secretbox": {"keys": [{"name": "one", "secret": base64.b64encode(bytes(32)).decode()}]}}

    def configure(*providers: dict[str, Any]) -> None:
        resources = [{"resources": ["secrets"], "providers": [*providers, {"identity": {}}]}]
        tree = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}
        config.write_text(yaml.safe_dump(tree))

    configure(kms)
    with running(tmp_path, port, config) as server:
        for number in range(20):
            body = {"metadata": {"name": f"s{number}"}, "data": {"k": MARK}}
            assert ask(port, "POST", SECRETS, body)[0] == 201
        os.kill(server.pid, signal.SIGKILL)

    raw = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("store.db*"))
    assert MARK.encode() not in raw
    assert raw.count(b"k8s:enc:kms:v2:vault:") >= 20

    configure(box, kms)
    with running(tmp_path, port, config):
        for number in range(20):
            status, text = ask(port, "GET", f"{SECRETS}/s{number}")
            assert status == 200
            found = json.loads(text)
            assert found["data"] == {"k": MARK}
            assert ask(port, "PUT", f"{SECRETS}/s{number}", found)[0] == 200

    configure(box)  # All were written anew: the plugin is not needed any more.
    with running(tmp_path, port, config):
        status, text = ask(port, "GET", SECRETS)
        assert status == 200
        assert text.count(MARK) == 20
