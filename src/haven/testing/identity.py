"""Keys and certificates that all clusters of a process share, because making them takes longer than all the rest.

They live in memory and end with the process. Every cluster has the same authority, so a client of one that dials the
port of another is let in; they are for tests only.
"""

from __future__ import annotations

import functools
import os
import ssl
import tempfile
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from haven.apiserver.authentication.interface import ALL_AUTHENTICATED, MASTERS
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.cluster.certificates import (
    Pair,
    Subject,
    client_pair,
    new_authority,
    serving_pair,
)
from haven.testing.tokenkey import token_key

__all__ = ["ADMIN", "Identity", "shared_identity"]

ADMIN = Subject("kubernetes-admin", (MASTERS,))
HOSTS = ("127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
BEGIN = 0.0
LIFE = timedelta(days=365 * 200)
"""From 1970 on and for long, because a test may begin in any year and let many pass."""

_lock = threading.Lock()


@dataclass(frozen=True)
class Identity:
    """Who the clusters are and whom they believe."""

    authority: Pair
    front_proxy_authority: Pair
    signing_keys: SigningKeys
    serving: Pair
    server_tls: ssl.SSLContext
    """For the API server: asks clients for certificates but takes those that have none."""
    kubelet_server_tls: ssl.SSLContext
    """For simulated kubelets: takes the API server alone."""
    kubelet_client_tls: ssl.SSLContext
    """By which the API server speaks to them."""

    @property
    def authority_certificate(self) -> x509.Certificate:
        return self.authority.loaded()

    def serving_for(self, hosts: tuple[str, ...]) -> Pair:
        """Return a serving certificate; the same one for the same hosts."""
        with _lock:
            return _serve(self, hosts)

    def issue(self, subject: Subject) -> Pair:
        """Return a client certificate; the same one for the same subject."""
        with _lock:
            return _issue(self, subject)


@functools.lru_cache(maxsize=256)
def _issue(identity: Identity, subject: Subject) -> Pair:
    return client_pair(identity.authority, subject, now=BEGIN, life=LIFE)


@functools.lru_cache(maxsize=64)
def _serve(identity: Identity, hosts: tuple[str, ...]) -> Pair:
    return serving_pair(identity.authority, hosts[0], hosts, now=BEGIN, life=LIFE)


def shared_identity() -> Identity:
    """Return the identity of this process, made at the first call."""
    with _lock:
        return _make()


@functools.cache
def _make() -> Identity:
    now = BEGIN
    authority = new_authority("kubernetes", now=now, life=LIFE)
    front_proxy = new_authority("front-proxy-ca", now=now, life=LIFE)
    serving = serving_pair(authority, "kube-apiserver", HOSTS, now=now, life=LIFE)
    kubelet_client = client_pair(
        authority, Subject("kube-apiserver-kubelet-client", (MASTERS, ALL_AUTHENTICATED)), now=now, life=LIFE
    )
    text = authority.certificate.decode()

    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(server_tls, serving)
    server_tls.load_verify_locations(cadata=text)
    server_tls.verify_mode = ssl.CERT_OPTIONAL

    kubelet_server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(kubelet_server_tls, serving)
    kubelet_server_tls.load_verify_locations(cadata=text)
    kubelet_server_tls.verify_mode = ssl.CERT_REQUIRED

    kubelet_client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    kubelet_client_tls.load_verify_locations(cadata=text)
    load_pair(kubelet_client_tls, kubelet_client)
    return Identity(
        authority,
        front_proxy,
        SigningKeys(token_key().result),
        serving,
        server_tls,
        kubelet_server_tls,
        kubelet_client_tls,
    )


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Give a context its certificate. The ssl module reads them from files only, which are gone at once."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # A busy disk takes long to forget a file.
    with tempfile.TemporaryDirectory(prefix="haven-", dir=in_memory) as directory:
        path = Path(directory) / "pair.pem"
        path.touch(mode=0o600)
        path.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(path)
