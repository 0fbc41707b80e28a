"""The file behind --admission-control-config-file: what each plugin is told.

Each plugin's part is a document of its own, within the file or in one that it names. Two plugins once read the whole
file themselves, in forms without a version; files like that are still understood.
Source: https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-k8s-io-v1-AdmissionConfiguration
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from haven.apimachinery.codecs import yaml
from haven.apimachinery.fielderrors import ErrorList
from haven.apimachinery.goformat import aggregate
from haven.apiserver.configfiles import ConfigError, Document, read_document

__all__ = ["PluginConfigs", "raise_first", "read_configuration"]

_VERSIONS = frozenset({"apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"})
_LEGACY = {"imagePolicy": "ImagePolicyWebhook", "podNodeSelectorPluginConfig": "PodNodeSelector"}
"""What the first key of an unversioned file is, and whose file it is."""


class _Plugin(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    name: str = ""
    path: str = ""
    configuration: dict[str, Any] | None = None


class _Configuration(Document, frozen=True):
    plugins: list[_Plugin] | None = None


@dataclass(frozen=True, slots=True)
class PluginConfigs:
    """The configuration of each plugin that has one, by its name; and where files that it names are."""

    documents: Mapping[str, bytes] = field(default_factory=dict)

    def of(self, name: str) -> bytes | None:
        """Return a plugin's document; None if nothing is said."""
        return self.documents.get(name)


def read_configuration(path: str) -> PluginConfigs:
    """Return what a file says; raise ConfigError."""
    if not path:
        return PluginConfigs()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise ConfigError(
            "failed to read plugin config: unable to read admission control configuration from"
            f' "{path}" [open {path}: {reason}]'
        ) from None
    legacy = _legacy_plugins(data)
    if legacy:
        return PluginConfigs(dict.fromkeys(legacy, data))
    try:
        found = read_document(data, _Configuration, "AdmissionConfiguration", _VERSIONS)
    except ConfigError as error:
        raise ConfigError(f"failed to read plugin config: {error}") from None
    documents: dict[str, bytes] = {}
    for plugin in found.plugins or ():
        if plugin.name in documents:
            continue  # The first one counts.
        if plugin.configuration is not None:
            documents[plugin.name] = msgspec.json.encode(plugin.configuration)
        elif plugin.path:
            documents[plugin.name] = _read(Path(path).parent / plugin.path)
    return PluginConfigs(documents)


def _legacy_plugins(data: bytes) -> Iterable[str]:
    try:
        tree, _ = yaml.parse(data)
    except yaml.InvalidYAML:
        return ()  # The strict reader says what is wrong.
    if not isinstance(tree, dict) or ("kind" in tree and "apiVersion" in tree):
        return ()
    return [name for key, name in _LEGACY.items() if any(one in tree for one in _LEGACY)] if tree else ()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"Couldn't open admission plugin configuration {path}: {error.strerror}") from None


def raise_first(errors: ErrorList) -> None:
    """Raise ConfigError with all complaints about a plugin's configuration, as upstream joins them."""
    if errors:
        raise ConfigError(aggregate(errors))
