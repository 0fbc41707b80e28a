"""haven api --ephemeral: a cluster for programs in any language, and for Go's envtest."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.ports import free_port

from haven.cluster.certificates import Subject, client_pair, new_authority, serving_pair

HAVEN = [sys.executable, "-m", "haven.cli.main"]
SECONDS = 120


def _haven(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HAVEN, *arguments], capture_output=True, text=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def _wait(is_done: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + SECONDS
    while not is_done():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def _wait_end(pid: int) -> None:
    _wait(lambda: not _is_alive(pid), "it runs on")


def test_a_command_runs_with_a_cluster_and_its_status_is_returned() -> None:
    code = (
        "import os, kubernetes as k; k.config.load_kube_config(); "
        "print(k.client.VersionApi().get_code().minor, os.environ['USE_EXISTING_CLUSTER'])"
    )
    ok = _haven("api", "--ephemeral", "--", sys.executable, "-c", code)
    bad = _haven("api", "--ephemeral", "--", "sh", "-c", "exit 7")

    assert (ok.stdout.split(), ok.returncode) == (["36", "true"], 0), ok.stderr
    assert bad.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_where_it_is_and_ends_cleanly(tmp_path: Path, number: int) -> None:
    kubeconfig = tmp_path / "config"
    manifest = tmp_path / "cm.yaml"
    manifest.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}")
    process = subprocess.Popen(
        [*HAVEN, "api", "--ephemeral", "--json", "--kubeconfig", str(kubeconfig), "--apply", str(manifest)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said["env"]["KUBECONFIG"] == said["kubeconfig"] == str(kubeconfig)
    assert kubeconfig.stat().st_mode & 0o077 == 0
    authority = ssl.create_default_context(cafile=said["certificateAuthority"])
    with urllib.request.urlopen(f"{said['url']}/healthz", context=authority) as answer:
        assert answer.read() == b"ok"

    process.send_signal(number)

    assert process.wait(SECONDS) == 0
    assert not Path(said["certificateAuthority"]).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell that a parent is gone")
def test_it_ends_with_the_program_that_started_it() -> None:
    starter = (
        "import subprocess, sys, json, os\n"
        f"p = subprocess.Popen({[*HAVEN, 'api', '--ephemeral', '--json']!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(json.loads(p.stdout.readline())['pid'], flush=True)\n"
        "os._exit(0)\n"
    )

    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)

    _wait_end(int(done.stdout))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells only")
@pytest.mark.parametrize("before", ["", "cd / && "])  # The second makes the shell wait in a copy of itself.
def test_a_script_has_a_cluster_behind_it_until_it_ends(tmp_path: Path, before: str) -> None:
    haven = shlex.join(HAVEN)
    script = (
        f'eval "$({before}{haven} api --ephemeral --background)"\n'
        f"""{shlex.quote(sys.executable)} -c 'import kubernetes as k; k.config.load_kube_config(); '\\
'print(k.client.VersionApi().get_code().minor)'\n"""
        'echo "$KUBECONFIG"\n'
    )

    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)

    minor, kubeconfig = done.stdout.split()
    assert minor == "36"
    _wait(lambda: not Path(kubeconfig).exists(), "the cluster goes on")


def test_what_its_user_can_mend_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: [")
    (tmp_path / "unknown.yaml").write_text("{kind: Shop, apiVersion: shops/v1, metadata: {name: corner}}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = {
            ("--port", str(taken.getsockname()[1])): "address already in use",
            ("--apply", str(tmp_path / "broken.yaml")): "broken.yaml: while parsing",
            ("--apply", str(tmp_path / "unknown.yaml")): "unknown.yaml: the cluster serves no 'Shop' of shops/v1",
            ("--background", "--kubeconfig", str(tmp_path / "no" / "kc")): "No such file or directory",
        }
        for arguments, words in cases.items():
            done = _haven("api", "--ephemeral", *arguments)

            assert (done.returncode, done.stdout) == (1, "")
            assert words in done.stderr
            assert "Traceback" not in done.stderr


def test_without_saying_ephemeral_nothing_is_started() -> None:
    done = _haven("api")

    assert done.returncode == 2
    assert "haven api --ephemeral" in done.stderr


def test_envtest_starts_a_suites_own_cluster(tmp_path: Path) -> None:
    """What controller-runtime's envtest does, step by step, with the programs that it finds."""
    assets, certs = tmp_path / "assets", tmp_path / "certs"
    certs.mkdir()
    done = _haven("api", "--json", "--envtest", str(assets))
    environment = json.loads(done.stdout)["env"]
    assert environment["KUBEBUILDER_ASSETS"] == str(assets)
    apiserver = environment["TEST_ASSET_KUBE_APISERVER"]
    helped = subprocess.run([apiserver, "--help"], capture_output=True, text=True)
    assert (helped.returncode, "--insecure-port" in helped.stdout) == (0, False)

    now, life = time.time(), timedelta(days=1)
    authority, clients = new_authority("envtest", now=now, life=life), new_authority("clients", now=now, life=life)
    serving = serving_pair(authority, "localhost", ["127.0.0.1", "localhost"], now=now, life=life)
    admin = client_pair(clients, Subject("admin", ("system:masters",)), now=now, life=life)
    for name, data in (
        ("apiserver.crt", serving.certificate), ("apiserver.key", serving.key),
        ("sa-signer.crt", authority.certificate), ("sa-signer.key", authority.key),
        ("client-cert-auth-ca.crt", clients.certificate), ("ca.crt", authority.certificate),
        ("admin.pem", admin.certificate + admin.key),
    ):  # fmt: skip
        (certs / name).write_bytes(data)
    etcd_port, port = free_port(), free_port()
    started = [
        subprocess.Popen([environment["TEST_ASSET_ETCD"], f"--listen-client-urls=http://127.0.0.1:{etcd_port}"]),
        subprocess.Popen(
            [
                apiserver, "--allow-privileged=true", "--authorization-mode=RBAC", "--bind-address=127.0.0.1",
                f"--cert-dir={certs}", f"--client-ca-file={certs / 'client-cert-auth-ca.crt'}",
                "--disable-admission-plugins=ServiceAccount", f"--etcd-servers=http://127.0.0.1:{etcd_port}",
                f"--secure-port={port}", f"--service-account-issuer=https://127.0.0.1:{port}/",
                f"--service-account-key-file={certs / 'sa-signer.crt'}",
                f"--service-account-signing-key-file={certs / 'sa-signer.key'}",
                "--service-cluster-ip-range=10.0.0.0/24",
            ]
        ),
    ]  # fmt: skip
    try:
        assert b"true" in _get(f"http://127.0.0.1:{etcd_port}/health", None)
        tls = ssl.create_default_context(cafile=str(certs / "ca.crt"))
        assert _get(f"https://127.0.0.1:{port}/healthz", tls) == b"ok"
        tls.load_cert_chain(certs / "admin.pem")
        assert (
            json.loads(_get(f"https://127.0.0.1:{port}/api/v1/nodes", tls))["items"][0]["metadata"]["name"] == "node-0"
        )
    finally:
        for process in started:
            process.terminate()
    assert [process.wait(SECONDS) for process in started] == [0, 0]


def _get(url: str, tls: ssl.SSLContext | None) -> bytes:
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, context=tls, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.1)
