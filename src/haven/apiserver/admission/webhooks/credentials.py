"""Who this server is to admission webhooks: users of a kubeconfig, chosen by the name of the callee.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#authenticate-apiservers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from haven.apimachinery import fielderrors
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.webhooks.target import Target
from haven.client import connection

__all__ = ["Credentials", "WebhookSettings", "parse_credentials", "parse_settings"]

_VERSIONS = frozenset({"apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1"})
_KINDS = ("WebhookAdmissionConfiguration", "WebhookAdmission")


class WebhookSettings(Document, frozen=True):
    """What a webhook plugin may be told."""

    kube_config_file: str = ""
    static_manifests_dir: str = ""


class Credentials:
    """Users by the names of callees: host:port, *.domain, *."""

    def __init__(self, tree: Mapping[str, Any], folder: Path) -> None:
        self._users = {one.get("name", ""): one.get("user") or {} for one in tree.get("users") or ()}
        self._contexts = {one.get("name", ""): one.get("context") or {} for one in tree.get("contexts") or ()}
        self._current = str(tree.get("current-context") or "")
        self._folder = folder

    def complete(self, target: Target) -> Target:
        """Return a callee with who we are to it; raise ValueError if the user cannot be used."""
        for name in self._names(target):
            if name in self._users:
                return self._as_user(target, name)
        return target

    def _names(self, target: Target) -> Iterator[str]:
        url = urlsplit(target.url)
        host = url.hostname or ""
        port = url.port or 443
        yield from _wildcards(f"{host}:{port}")
        if port == 443:
            yield from _wildcards(host)
        yield "*"
        user = self._contexts.get(self._current, {}).get("user")
        if user:
            yield str(user)

    def _as_user(self, target: Target, name: str) -> Target:
        try:
            known = Target.of_connection(connection.of_user(self._users[name], target.url, self._folder))
        except connection.ConfigError as error:
            raise ValueError(str(error)) from None
        return replace(
            target,
            certificate=known.certificate,
            key=known.key,
            headers=known.headers,
            token_file=known.token_file,
        )


def _wildcards(name: str) -> Iterator[str]:
    yield name
    steps = name.split(".")
    for index in range(1, len(steps)):
        yield "*." + ".".join(steps[index:])


def parse_settings(document: bytes | None) -> WebhookSettings:
    """Return a webhook plugin's configuration; raise ConfigError."""
    if document is None:
        return WebhookSettings()
    kind = next((one for one in _KINDS if one.encode() in document), _KINDS[0])
    return read_document(document, WebhookSettings, kind, _VERSIONS)


def parse_credentials(document: bytes | None) -> Credentials | None:
    """Return the users of a configuration's kubeconfig, None without one; raise ConfigError."""
    path = parse_settings(document).kube_config_file
    if not path:
        return None
    if not Path(path).is_absolute():
        error = fielderrors.invalid(fielderrors.Path("kubeConfigFile"), path, "must be an absolute file path")
        raise ConfigError(str(error))
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no kubeconfig")
    return Credentials(tree, Path(path).parent)
