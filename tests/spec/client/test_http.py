"""The HTTPS transport against a small server on loopback: the only spec here that opens sockets."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haven.apimachinery import apierrors
from haven.client.connection import ConfigError, Connection, from_kubeconfig, from_pod, parse_kubeconfig
from haven.client.http import HttpLimits, HttpTransport
from haven.client.interface import Unreachable
from haven.client.ratelimit import TokenBucket
from haven.clock import FakeClock

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Pki:
    """A certificate authority, a server certificate for 127.0.0.1 and a client's, all in PEM."""

    ca: bytes
    server: bytes
    server_key: bytes
    client: bytes
    client_key: bytes


def issue(
    name: str, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(issuer_key or key, hashes.SHA256())
    )
    return certificate, key


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def pki() -> Pki:
    ca, ca_key = issue("test ca", None, None)
    server, server_key = issue("127.0.0.1", ca, ca_key)
    client, client_key = issue("admin", ca, ca_key)
    return Pki(pem(ca), pem(server), key_pem(server_key), pem(client), key_pem(client_key))


@asynccontextmanager
async def serving(handler: Handler, *, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"{'https' if context is not None else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "body": body.decode(),
            "authorization": request.headers.get("Authorization", ""),
            "groups": request.headers.getall("Impersonate-Group", []),
            "type": request.headers.get("Content-Type", ""),
        },
        status=201 if request.method == "POST" else 200,
    )


async def test_a_request_arrives_as_it_was_sent_and_its_answer_comes_back() -> None:
    async with serving(echo) as url:
        transport = HttpTransport(Connection(url, token="secret", impersonate_user="u", impersonate_groups=("a", "b")))
        answer = await transport.request(
            "POST", "/api/v1/pods?fieldSelector=a%3Db", body=b"{}", headers={"Content-Type": "application/json"}
        )
        await transport.close()

    assert answer.status == 201
    assert answer.body.decode().startswith(
        '{"method": "POST", "path": "/api/v1/pods?fieldSelector=a%3Db", "body": "{}"'
    )
    assert b'"authorization": "Bearer secret", "groups": ["a", "b"], "type": "application/json"' in answer.body


async def test_connections_are_used_again() -> None:
    ports: set[int] = set()

    async def remember(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return await echo(request)

    async with serving(remember) as url:
        transport = HttpTransport(Connection(url))
        for _ in range(5):
            await transport.request("GET", "/")
        await transport.close()

    assert len(ports) == 1


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with serving(echo) as url:
        pass
    transport = HttpTransport(Connection(url))

    with pytest.raises(Unreachable, match="gave no answer"):
        await transport.request("GET", "/")
    await transport.close()


async def test_a_server_that_does_not_answer_in_time_is_unreachable() -> None:
    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async with serving(hang) as url:
        transport = HttpTransport(Connection(url), limits=HttpLimits(request_seconds=0.05))
        with pytest.raises(Unreachable):
            await transport.request("GET", "/")
        await transport.close()


async def stream(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first\nsec")
    await response.write(b"ond\n" + b"x" * 300_000 + b"\nunfinished")
    if request.path == "/broken":
        assert request.transport is not None
        request.transport.abort()
    else:
        await response.write_eof()
    return response


async def test_a_stream_yields_lines_of_any_length() -> None:
    async with serving(stream) as url:
        transport = HttpTransport(Connection(url))
        lines = [line async for line in transport.stream("/watch")]
        await transport.close()

    assert [len(line) for line in lines] == [5, 6, 300_000, 10]
    assert lines[:2] == [b"first", b"second"]


async def test_a_stream_that_breaks_off_is_unreachable() -> None:
    async with serving(stream) as url:
        transport = HttpTransport(Connection(url))
        with pytest.raises(Unreachable):
            async for _ in transport.stream("/broken"):
                pass
        await transport.close()


async def test_a_refused_stream_is_the_error_of_its_status() -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "reason": "Forbidden", "message": "no", "code": 403}, status=403)

    async with serving(refuse) as url:
        transport = HttpTransport(Connection(url))
        with pytest.raises(apierrors.Forbidden, match="no"):
            async for _ in transport.stream("/watch"):
                pass
        await transport.close()


async def test_leaving_a_stream_ends_its_connection() -> None:
    ended = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"tick\n")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serving(endless) as url:
        transport = HttpTransport(Connection(url))
        lines = transport.stream("/watch")
        assert await anext(lines) == b"tick"
        await lines.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await ended.wait()
        await transport.close()


async def whoami(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    subject = request.transport.get_extra_info("peercert")["subject"]
    return web.Response(text=subject[0][0][1])


def server_context(pki: Pki, folder: Path) -> ssl.SSLContext:
    (folder / "server.pem").write_bytes(pki.server + pki.server_key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pki.ca.decode())
    context.load_cert_chain(folder / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("inline", [True, False])
async def test_client_certificates_come_from_files_or_inline(pki: Pki, tmp_path: Path, inline: bool) -> None:
    for name, data in (("ca", pki.ca), ("cert", pki.client), ("key", pki.client_key)):
        (tmp_path / name).write_bytes(data)
    async with serving(whoami, context=server_context(pki, tmp_path)) as url:
        connection = (
            Connection(url, ca=pki.ca, certificate=pki.client, key=pki.client_key)
            if inline
            else Connection(url, ca=tmp_path / "ca", certificate=tmp_path / "cert", key=tmp_path / "key")
        )
        transport = HttpTransport(connection)
        answer = await transport.request("GET", "/")
        await transport.close()

    assert answer.body == b"admin"


async def test_a_server_that_an_unknown_authority_vouches_for_is_not_trusted(pki: Pki, tmp_path: Path) -> None:
    stranger, _ = issue("stranger", None, None)
    async with serving(whoami, context=server_context(pki, tmp_path)) as url:
        transport = HttpTransport(Connection(url, ca=pem(stranger), certificate=pki.client, key=pki.client_key))
        with pytest.raises(Unreachable, match="not trusted"):
            await transport.request("GET", "/")
        await transport.close()


async def test_a_token_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    clock, token = FakeClock(), tmp_path / "token"
    token.write_text("old\n")
    async with serving(echo) as url:
        transport = HttpTransport(Connection(url, token_file=token), clock=clock)
        first = await transport.request("GET", "/")
        token.write_text("new\n")
        second = await transport.request("GET", "/")
        await clock.advance(61)
        third = await transport.request("GET", "/")
        await transport.close()

    assert [b"Bearer old" in answer.body for answer in (first, second, third)] == [True, True, False]
    assert b"Bearer new" in third.body


async def test_a_limit_on_requests_makes_the_surplus_wait() -> None:
    clock = FakeClock()
    async with serving(echo) as url:
        transport = HttpTransport(Connection(url), limits=HttpLimits(per_second=10, burst=2), clock=clock)
        for _ in range(2):
            await transport.request("GET", "/")
        third = asyncio.ensure_future(transport.request("GET", "/"))
        await asyncio.sleep(0.05)
        assert not third.done()
        await clock.advance(0.2)
        await third
        await transport.close()


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(per_second=10, burst=2, now_seconds=0)

    assert [round(bucket.reserve(0), 3) for _ in range(4)] == [0, 0, 0.1, 0.2]
    assert not bucket.try_take(0.25)
    assert bucket.try_take(0.31)


# Kubeconfigs

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: main
contexts:
- name: main
  context: {cluster: here, user: admin, namespace: work}
- name: token
  context: {cluster: here, user: robot}
- name: broken
  context: {cluster: nowhere, user: robot}
- name: exec
  context: {cluster: here, user: cloud}
clusters:
- name: here
  cluster: {server: "https://10.0.0.1:6443", certificate-authority: ca.crt, tls-server-name: kubernetes}
users:
- name: admin
  user: {client-certificate-data: CERT, client-key: admin.key, client-certificate: ignored.crt}
- name: robot
  user: {tokenFile: /run/token}
- name: cloud
  user: {exec: {command: aws}}
""".replace("CERT", base64.b64encode(b"-----BEGIN").decode())


def test_a_kubeconfig_says_how_to_reach_the_server_of_its_current_context(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)

    connection = from_kubeconfig(tmp_path / "config")

    assert connection == Connection(
        server="https://10.0.0.1:6443",
        ca=tmp_path / "ca.crt",
        certificate=b"-----BEGIN",
        key=tmp_path / "admin.key",
        server_name="kubernetes",
        namespace="work",
    )


def test_another_context_can_be_chosen() -> None:
    connection = parse_kubeconfig(KUBECONFIG, folder=Path("/x"), context="token")

    assert connection.token_file == Path("/run/token")
    assert connection.certificate is None


@pytest.mark.parametrize(
    ("text", "context", "complaint"),
    [
        (KUBECONFIG, "none", "no context named 'none'"),
        (KUBECONFIG, "broken", "no cluster named 'nowhere'"),
        (KUBECONFIG, "exec", "uses exec"),
        ("- just\n- a list\n", "", "holds no kubeconfig"),
        ("a: [", "", "is no YAML"),
        ("apiVersion: v1\n", "", "no current-context"),
        (KUBECONFIG.replace("https://10.0.0.1:6443", "10.0.0.1"), "", "no http or https URL"),
        (KUBECONFIG.replace("client-key: admin.key, ", ""), "", "given together"),
    ],
)
def test_a_kubeconfig_that_cannot_work_says_what_is_wrong(text: str, context: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_kubeconfig(text, folder=Path("/x"), context=context)


def test_a_missing_kubeconfig_is_an_error_of_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        from_kubeconfig(tmp_path / "none")


def test_a_pod_finds_its_server_by_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("ns\n")

    connection = from_pod({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, folder=tmp_path)

    assert (connection.server, connection.namespace) == ("https://[fd00::1]:443", "ns")
    with pytest.raises(ConfigError):
        from_pod({}, folder=tmp_path)
