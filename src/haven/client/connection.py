"""Where an API server is and who we are to it: plain settings, from code, a kubeconfig or a pod's mounted token.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

__all__ = ["ConfigError", "Connection", "PemSource", "from_kubeconfig", "from_pod", "parse_kubeconfig"]

SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")

PemSource = bytes | Path
"""PEM text, or the file that holds it and may be renewed while we run."""


class ConfigError(Exception):
    """The settings do not say how to reach a server; the message names what to change."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One server, one identity. A certificate and a token may both be given; both are sent."""

    server: str
    ca: PemSource | None = None  # None: the certificate authorities of the system.
    certificate: PemSource | None = None
    key: PemSource | None = None
    token: str = ""
    token_file: Path | None = None  # Read again every minute: projected tokens are replaced before they end.
    insecure: bool = False  # Take any server certificate.
    server_name: str = ""  # The name that the server's certificate must carry, if not the URL's.
    impersonate_user: str = ""
    impersonate_groups: tuple[str, ...] = ()
    namespace: str = "default"

    def __post_init__(self) -> None:
        url = urlsplit(self.server)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ConfigError(f"the server's address {self.server!r} is no http or https URL")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate and its key must be given together")


def from_kubeconfig(path: Path, *, context: str = "") -> Connection:
    """Return what a kubeconfig file says about a context, its current one when "" is given; raise ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    return parse_kubeconfig(text, folder=path.absolute().parent, context=context, source=str(path))


def parse_kubeconfig(text: str, *, folder: Path, context: str = "", source: str = "kubeconfig") -> Connection:
    """Return what the text of a kubeconfig says; names of files in it are relative to `folder`."""
    try:
        tree = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is no YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source} holds no kubeconfig")
    name = context or _text(tree, "current-context")
    if not name:
        raise ConfigError(f"{source} has no current-context: choose one with `kubectl config use-context`")
    chosen = _named(tree, "contexts", "context", name, source)
    cluster = _named(tree, "clusters", "cluster", _text(chosen, "cluster"), source)
    user_name = _text(chosen, "user")
    user = _named(tree, "users", "user", user_name, source) if user_name else {}
    for unsupported in ("exec", "auth-provider", "username", "password"):
        if user.get(unsupported):
            raise ConfigError(f"{source}: user {user_name!r} uses {unsupported}: use a client certificate or a token")
    if cluster.get("proxy-url"):
        raise ConfigError(f"{source}: proxy-url is not supported: reach the server directly")
    token_file = _text(user, "tokenFile")
    return Connection(
        server=_text(cluster, "server"),
        ca=_pem(cluster, "certificate-authority", folder, source),
        certificate=_pem(user, "client-certificate", folder, source),
        key=_pem(user, "client-key", folder, source),
        token=_text(user, "token"),
        token_file=folder / token_file if token_file else None,
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_name=_text(cluster, "tls-server-name"),
        impersonate_user=_text(user, "as"),
        impersonate_groups=tuple(user.get("as-groups") or ()),
        namespace=_text(chosen, "namespace") or "default",
    )


def of_user(user: Mapping[str, Any], server: str, folder: Path, *, source: str = "kubeconfig") -> Connection:
    """Return how one of a kubeconfig's users reaches a server that is not in it; raise ConfigError."""
    token_file = _text(user, "tokenFile")
    return Connection(
        server=server,
        certificate=_pem(user, "client-certificate", folder, source),
        key=_pem(user, "client-key", folder, source),
        token=_text(user, "token"),
        token_file=folder / token_file if token_file else None,
    )


def from_pod(environment: Mapping[str, str], *, folder: Path = SERVICE_ACCOUNT_FOLDER) -> Connection:
    """Return how a program in a pod reaches its API server; raise ConfigError outside of one."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port or not (folder / "token").exists():
        raise ConfigError("this is no pod with a service account: name a kubeconfig")
    namespace = (folder / "namespace").read_text().strip() if (folder / "namespace").exists() else "default"
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca=folder / "ca.crt",
        token_file=folder / "token",
        namespace=namespace,
    )


def _named(tree: Mapping[str, Any], section: str, inner: str, name: str, source: str) -> Mapping[str, Any]:
    """Return the entry of a kubeconfig's list that has a name."""
    for entry in tree.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(inner) or {}
            if isinstance(found, dict):
                return found
    raise ConfigError(f"{source} has no {inner} named {name!r}")


def _text(tree: Mapping[str, Any], field: str) -> str:
    value = tree.get(field)
    return value if isinstance(value, str) else ""


def _pem(tree: Mapping[str, Any], field: str, folder: Path, source: str) -> PemSource | None:
    """Inline data wins over a file, as it does in kubectl."""
    if data := _text(tree, f"{field}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ConfigError(f"{source}: {field}-data is no base64") from error
    if name := _text(tree, field):
        return folder / name
    return None
