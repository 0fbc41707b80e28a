"""Whom to call and how to trust and convince them: a URL, a Service of the cluster, or a kubeconfig's server.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from haven.client.connection import Connection, PemSource

__all__ = ["ClientConfig", "ServiceTarget", "Target", "tls_context"]

DEFAULT_PORT = 443


class _ServiceReference(Protocol):
    namespace: str
    name: str
    port: int | None


class ClientConfig(Protocol):
    """What the API calls WebhookClientConfig, of any group and version: `url` or `service`, and `ca_bundle`."""

    @property
    def url(self) -> str | None:
        """The whole address, if it is no Service."""
        ...

    @property
    def service(self) -> Any:
        """A namespace, name, path and port."""
        ...

    @property
    def ca_bundle(self) -> bytes:
        """PEM, or nothing for the system's authorities."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A Service of this cluster, by port number."""

    namespace: str
    name: str
    port: int

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must carry."""
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class Target:
    """One callee. `url` is what error messages show; with a `service` its host is resolved anew for each call.

    An empty `ca` means the system's authorities. `certificate` and `key` (PEM) and `headers` say who we are.
    """

    url: str
    service: ServiceTarget | None = None
    ca: bytes = b""
    insecure: bool = False
    server_name: str = ""
    certificate: bytes = b""
    key: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    token_file: Path | None = field(default=None)
    """Read again for each call: projected tokens are replaced before they end."""

    @classmethod
    def of(cls, config: ClientConfig) -> Target:
        """Return the callee of a webhook's client configuration; raise ValueError if it names none."""
        reference = config.service
        ca = config.ca_bundle or b""
        if reference is not None:
            return cls.of_service(reference, path=reference.path or "", ca=ca)
        if not config.url:
            raise ValueError("webhook configuration must have either service or URL")
        return cls(config.url, ca=ca)

    @classmethod
    def of_service(cls, reference: _ServiceReference, *, path: str = "", ca: bytes = b"") -> Target:
        """Return a Service as a callee; without a port it is 443."""
        service = ServiceTarget(reference.namespace, reference.name, reference.port or DEFAULT_PORT)
        place = "/" + quote(path.lstrip("/"), safe="/:@!$&'()*+,;=~-._")
        return cls(f"https://{service.server_name}:{service.port}{place}", service=service, ca=ca)

    @classmethod
    def of_connection(cls, connection: Connection) -> Target:
        """Return a kubeconfig's server as a callee, as webhook back ends of the API server are configured."""
        headers = [("Authorization", f"Bearer {connection.token}")] if connection.token else []
        return cls(
            connection.server,
            ca=_pem(connection.ca),
            insecure=connection.insecure,
            server_name=connection.server_name,
            certificate=_pem(connection.certificate),
            key=_pem(connection.key),
            headers=tuple(headers),
            token_file=connection.token_file,
        )

    @property
    def tls_name(self) -> str:
        """The name that the server must prove, where it is not the one in the URL; "" otherwise."""
        return self.server_name or (self.service.server_name if self.service is not None else "")


def _pem(source: PemSource | None) -> bytes:
    if source is None:
        return b""
    return source if isinstance(source, bytes) else source.read_bytes()


def tls_context(*, ca: bytes, insecure: bool, certificate: bytes = b"", key: bytes = b"") -> ssl.SSLContext:
    """Return how to speak TLS; raise ValueError if a PEM text cannot be used.

    Like Go's, it takes any certificate of the bundle for an authority, not only self-signed ones, and reads names from
    the certificate's alternative names alone.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca.strip():
        try:
            context.load_verify_locations(cadata=_certificates(ca))
        except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
            raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from error
    else:
        context.load_default_certs()
    if certificate:
        # The library reads a certificate of our own from a file only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate.rstrip() + b"\n" + key)
            file.flush()
            try:
                context.load_cert_chain(file.name)
            except ssl.SSLError as error:
                raise ValueError(f"tls: failed to load the client certificate: {error.reason}") from error
    return context


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def _certificates(pem: bytes) -> str:
    """Return the certificates of a bundle and leave everything else between them out."""
    blocks: Sequence[str] = pem.decode("utf-8", "replace").split(_BEGIN)[1:]
    bodies = [block.split(_END)[0] for block in blocks if _END in block]
    for body in bodies:
        base64.b64decode("".join(body.split()), validate=True)
    if not bodies:
        raise ValueError("no certificate")
    return "".join(f"{_BEGIN}\n{body.strip()}\n{_END}\n" for body in bodies)
