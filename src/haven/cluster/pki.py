"""The cluster's own public key infrastructure on one machine's disk, laid out as kubeadm does.

`ensure` makes what is missing, renews what is about to end or names the wrong hosts, and leaves the rest alone, so it
may run at every start and every day. Authorities and the token key are made once: everything else follows from them.
Files are written beside their place and renamed into it, readable by their owner only.
Source: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate

from haven.cluster.certificates import (
    Pair,
    Subject,
    client_pair,
    names_of,
    needs_renewal,
    new_authority,
    new_token_key,
    serving_pair,
)
from haven.cluster.kubeconfig import certificate_in, kubeconfig

__all__ = [
    "ADMINS", "MASTERS", "NODES", "Pki", "PkiError", "PkiSettings", "ensure", "issue_client", "renew_authorities",
    "serving_hosts",
]  # fmt: skip

ADMINS = "kubeadm:cluster-admins"
"""The group of the everyday administrator, whose rights come from a binding and can be taken away."""
MASTERS = "system:masters"
"""The group that no role can hold back; only super-admin.conf has it, for when roles are broken."""
NODES = "system:nodes"


AUTHORITIES = {"ca": "kubernetes", "front-proxy-ca": "front-proxy-ca"}
"""The names of their files, and of themselves."""


class PkiError(Exception):
    """What everything else follows from cannot be used; the message names the file and the fix."""


@dataclass(frozen=True)
class PkiSettings:
    """What the certificates of one machine contain."""

    directory: Path
    server: str = "https://127.0.0.1:6443"
    """The API server's URL in kubeconfig files."""
    cluster: str = "haven"
    """The cluster's name in kubeconfig files."""
    cluster_domain: str = "cluster.local"
    service_network: str = "10.96.0.0/16"
    node_name: str = ""
    """The node that this machine is; "" for a machine that is none."""
    hosts: tuple[str, ...] = field(default=())
    """More names and addresses by which clients reach the API server and the kubelet of this machine."""
    authority_life: timedelta = timedelta(days=3650)
    certificate_life: timedelta = timedelta(days=90)
    """Short, because certificates are renewed in time by themselves and cannot be revoked."""
    admin_life: timedelta = timedelta(days=365)
    """Longer, because people copy these files elsewhere."""


@dataclass(frozen=True)
class Pki:
    """The paths of what `ensure` keeps. `changed` names the files that it wrote this time."""

    directory: Path
    changed: tuple[str, ...] = ()

    @property
    def ca_certificate(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca.key"

    @property
    def front_proxy_ca_certificate(self) -> Path:
        return self.directory / "front-proxy-ca.crt"

    @property
    def front_proxy_client(self) -> tuple[Path, Path]:
        """The certificate and key by which the API server proves to extension servers that it is their proxy."""
        return self._pair("front-proxy-client")

    @property
    def token_key(self) -> Path:
        """The private key that signs service account tokens."""
        return self.directory / "sa.key"

    @property
    def token_public_key(self) -> Path:
        return self.directory / "sa.pub"

    @property
    def apiserver(self) -> tuple[Path, Path]:
        """The API server's serving certificate and key."""
        return self._pair("apiserver")

    @property
    def kubelet_client(self) -> tuple[Path, Path]:
        """The certificate and key by which the API server speaks to kubelets."""
        return self._pair("apiserver-kubelet-client")

    @property
    def kubelet_serving(self) -> tuple[Path, Path]:
        """The kubelet's serving certificate and key; there only on a machine that is a node."""
        return self._pair("kubelet")

    @property
    def admin(self) -> Path:
        """The everyday administrator's kubeconfig."""
        return self.directory / "admin.conf"

    @property
    def super_admin(self) -> Path:
        return self.directory / "super-admin.conf"

    def component(self, name: str) -> Path:
        """Return the kubeconfig of a component: controller-manager, scheduler, kubelet, kube-proxy."""
        return self.directory / f"{name}.conf"

    def _pair(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"


def serving_hosts(settings: PkiSettings) -> list[str]:
    """Return every name and address that the API server's certificate is for."""
    network = ip_network(settings.service_network)
    service = "kubernetes"
    return list(
        dict.fromkeys(
            [
                "localhost", "127.0.0.1", "::1",
                service, f"{service}.default", f"{service}.default.svc",
                f"{service}.default.svc.{settings.cluster_domain}",
                str(network.network_address + 1),
                socket.gethostname(),
                *([settings.node_name] if settings.node_name else []),
                *settings.hosts,
            ]
        )
    )  # fmt: skip


def ensure(settings: PkiSettings, now: float) -> Pki:
    """Make the directory complete and up to date; `now` is seconds since 1970. Raises PkiError."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(settings.directory):
        return _ensure(settings, now)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let several servers of one machine keep the same files, one after the other."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _ensure(settings: PkiSettings, now: float) -> Pki:
    keeper = _Keeper(settings, now)
    authority, front_proxy = (keeper.authority(name, subject) for name, subject in AUTHORITIES.items())
    keeper.token_key()
    life = settings.certificate_life
    hosts = serving_hosts(settings)
    keeper.pair("apiserver", authority, hosts, lambda: serving_pair(
        authority, "kube-apiserver", hosts, now=now, life=life))  # fmt: skip
    clients = [
        ("apiserver-kubelet-client", authority, Subject("kube-apiserver-kubelet-client", (ADMINS,))),
        ("front-proxy-client", front_proxy, Subject("front-proxy-client")),
    ]
    for name, issuer, subject in clients:
        keeper.client(name, issuer, subject)
    if settings.node_name:
        own = ["localhost", "127.0.0.1", "::1", socket.gethostname(), settings.node_name, *settings.hosts]
        user = f"system:node:{settings.node_name}"
        keeper.pair("kubelet", authority, own, lambda: serving_pair(
            authority, user, own, now=now, life=life, groups=(NODES,)))  # fmt: skip
    for name, subject, lives in _kubeconfigs(settings):
        keeper.kubeconfig(name, authority, subject, lives)
    return Pki(settings.directory, tuple(keeper.changed))


def renew_authorities(settings: PkiSettings, now: float) -> None:
    """Sign the authorities anew with their own keys, so that what they issued and pins of the key stay good.

    Raises PkiError if there is none or it is damaged. Copies of the old certificate elsewhere end when it does.
    """
    keeper = _Keeper(settings, now)
    for name, subject in AUTHORITIES.items():
        keeper.renew_authority(name, subject)


def issue_client(settings: PkiSettings, subject: Subject, now: float) -> Pair:
    """Return a client certificate of the cluster's authority, which exists."""
    authority = Pair(
        (settings.directory / "ca.crt").read_bytes(),
        (settings.directory / "ca.key").read_bytes(),
    )
    return client_pair(authority, subject, now=now, life=settings.certificate_life)


def _kubeconfigs(settings: PkiSettings) -> Iterator[tuple[str, Subject, timedelta]]:
    life = settings.certificate_life
    yield "admin", Subject("kubernetes-admin", (ADMINS,)), settings.admin_life
    yield "super-admin", Subject("kubernetes-super-admin", (MASTERS,)), settings.admin_life
    yield "controller-manager", Subject("system:kube-controller-manager"), life
    yield "scheduler", Subject("system:kube-scheduler"), life
    yield "kube-proxy", Subject("system:kube-proxy"), life
    if settings.node_name:
        yield "kubelet", Subject(f"system:node:{settings.node_name}", (NODES,)), life


class _Keeper:
    """Compares files with what they should be and writes those that are not."""

    def __init__(self, settings: PkiSettings, now: float) -> None:
        self._settings = settings
        self._directory = settings.directory
        self._now = now
        self.changed: list[str] = []

    def authority(self, name: str, subject: str) -> Pair:
        pair = self._read(name)
        if pair is None:
            pair = new_authority(subject, now=self._now, life=self._settings.authority_life)
            self._write_pair(name, pair)
            return pair
        path = self._directory / f"{name}.crt"
        loaded = self._checked(pair, name)
        now = datetime.fromtimestamp(self._now, UTC)
        if now > loaded.not_valid_after_utc:
            raise PkiError(
                f"the certificate authority {path} ended on {loaded.not_valid_after_utc:%Y-%m-%d}: "
                "haven up --renew-authority signs it anew with its own key"
            )
        if now < loaded.not_valid_before_utc:
            raise PkiError(
                f"the certificate authority {path} begins on {loaded.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
                f"which is in the future: set this machine's clock, it says {now:%Y-%m-%d %H:%M} UTC"
            )
        return pair

    def renew_authority(self, name: str, subject: str) -> None:
        pair = self._read(name)
        if pair is None:
            raise PkiError(f"{self._directory} has no authority {name} yet: haven up makes it")
        self._checked(pair, name)
        self._write_pair(name, new_authority(subject, now=self._now, life=self._settings.authority_life, key=pair.key))

    def _checked(self, pair: Pair, name: str) -> Certificate:
        """Return an authority's certificate, which belongs to its key."""
        try:
            certificate = pair.loaded()
            key = load_pem_private_key(pair.key, password=None)
            if key.public_key() == certificate.public_key():
                return certificate
            what = "does not belong to its key"
        except (ValueError, TypeError):
            what = "or its key is damaged"
        raise PkiError(
            f"the certificate authority {self._directory / name}.crt {what}: restore both from a backup, or remove "
            "both: haven up then makes new ones and every certificate with them"
        )

    def token_key(self) -> None:
        path = self._directory / "sa.key"
        if path.exists() and (self._directory / "sa.pub").exists():
            try:
                load_pem_private_key(path.read_bytes(), password=None)
            except (ValueError, TypeError):
                raise PkiError(
                    f"the key of service account tokens {path} is damaged: restore it from a backup, or remove it: "
                    "haven up then makes a new one, and Pods get new tokens"
                ) from None
            return
        private, public = new_token_key()
        self._write("sa.pub", public)
        self._write("sa.key", private)

    def client(self, name: str, authority: Pair, subject: Subject) -> None:
        life = self._settings.certificate_life
        self.pair(name, authority, (), lambda: client_pair(authority, subject, now=self._now, life=life))

    def pair(self, name: str, authority: Pair, hosts: list[str] | tuple[str, ...], make: Callable[[], Pair]) -> None:
        pair = self._read(name)
        if pair is None or not self._is_current(pair.certificate, authority, frozenset(hosts)):
            self._write_pair(name, make())

    def kubeconfig(self, name: str, authority: Pair, subject: Subject, life: timedelta) -> None:
        settings = self._settings
        path = self._directory / f"{name}.conf"
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            certificate = certificate_in(text)
            if (
                certificate is not None
                and b64encode(authority.certificate).decode() in text
                and self._is_current(certificate, authority, frozenset())
                and f"server: {settings.server}\n" in text
            ):
                return
        text = kubeconfig(
            cluster=settings.cluster,
            server=settings.server,
            authority=authority.certificate,
            user=subject.name,
            pair=client_pair(authority, subject, now=self._now, life=life),
        )
        self._write(path.name, text.encode())

    def _is_current(self, certificate: bytes, authority: Pair, hosts: frozenset[str]) -> bool:
        try:
            loaded = Pair(certificate, b"").loaded()
            loaded.verify_directly_issued_by(authority.loaded())
        except (ValueError, TypeError, InvalidSignature):
            return False  # Damaged, or of another authority: it is made anew.
        # One from the future was made while the clock was wrong.
        has_begun = loaded.not_valid_before_utc.timestamp() <= self._now
        return has_begun and not needs_renewal(loaded, self._now) and names_of(loaded) == hosts

    def _read(self, name: str) -> Pair | None:
        certificate, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        if not (certificate.exists() and key.exists()):
            return None
        return Pair(certificate.read_bytes(), key.read_bytes())

    def _write_pair(self, name: str, pair: Pair) -> None:
        """Write both files; the certificate comes last, as `_read` and servers go by it."""
        self._write(f"{name}.key", pair.key)
        self._write(f"{name}.crt", pair.certificate)

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._directory / name, data)
        self.changed.append(name)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by one with mode 0600, so that a crash leaves the old or the new one, never half of one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
