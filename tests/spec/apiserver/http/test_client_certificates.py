"""Handshakes with client certificates: only what an authority issued, and only as long as it is valid, gets through."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haven.apiserver.http.server import HttpServer
from haven.apiserver.request import Request, Response


def self_signed(folder: Path, name: str, *, days: int = 1) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=3))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, file = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return certificate, file


@pytest.mark.parametrize("days", [1, -1], ids=["foreign", "expired"])
async def test_a_certificate_that_is_worth_nothing_ends_the_handshake(tmp_path: Path, days: int) -> None:
    shown: list[bytes | None] = []

    async def handle(request: Request) -> Response:
        shown.append(request.client_certificate)
        return Response()

    serving, authority = self_signed(tmp_path, "serving"), self_signed(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*serving)
    expired = self_signed(tmp_path, "stranger", days=days)
    context.load_verify_locations(authority[0] if days > 0 else expired[0])
    context.verify_mode = ssl.CERT_OPTIONAL
    server = HttpServer(handle, body_bytes_max=1000, gzip_bytes_min=1000, tls=context)
    port = await server.listen("127.0.0.1", 0)
    client = ssl.create_default_context(cafile=str(serving[0]))
    client.load_cert_chain(*expired)

    answer = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    await server.close(0.0)

    assert (answer, shown) == (b"", [])
