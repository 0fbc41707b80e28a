"""EncryptionConfiguration: which resources are encrypted, how they are written and how they may be read.

Source: https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from haven.apimachinery.goformat import quote
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.flags import parse_duration

__all__ = ["KeyProvider", "KmsProvider", "Provider", "ResourceProviders", "parse_encryption"]

VERSIONS = ("apiserver.config.k8s.io/v1",)
_WITHOUT_API = ("apiserveripinfo", "serviceipallocations", "servicenodeportallocations")
_LINE_ENDS = {ord("\r"): None, ord("\n"): None}
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")
_SIZES = {"aesgcm": (16, 24, 32), "aescbc": (16, 24, 32), "secretbox": (32,)}
KMS_SECONDS = 3.0


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    pass


class _Key(_Part, frozen=True):
    name: str = ""
    secret: str = ""


class _Keys(_Part, frozen=True):
    keys: tuple[_Key, ...] = ()


class _Kms(_Part, frozen=True):
    api_version: str = "v1"
    name: str = ""
    endpoint: str = ""
    timeout: str = "3s"
    cachesize: int | None = None


class _Provider(_Part, frozen=True):
    aesgcm: _Keys | None = None
    aescbc: _Keys | None = None
    secretbox: _Keys | None = None
    identity: _Part | None = None
    kms: _Kms | None = None


class _Resource(_Part, frozen=True):
    resources: tuple[str, ...] = ()
    providers: tuple[_Provider, ...] = ()


class _File(Document, frozen=True):
    resources: tuple[_Resource, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyProvider:
    """aesgcm, aescbc or secretbox with named keys, the first of which writes; or identity, which has none."""

    kind: str
    keys: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class KmsProvider:
    """A KMS v2 plugin."""

    name: str
    endpoint: str
    timeout_seconds: float


Provider = KeyProvider | KmsProvider


@dataclass(frozen=True, slots=True)
class ResourceProviders:
    """Resources as plural.group, with the wildcards *.group, *. (the core group) and *.*; and their providers."""

    resources: tuple[str, ...]
    providers: tuple[Provider, ...]

    def concerns(self, group: str, plural: str) -> bool:
        """Tell whether a resource is one of these."""
        exact = f"{plural}.{group}" if group else plural
        return not {exact, f"*.{group}", "*.*"}.isdisjoint(self.resources)


def parse_encryption(data: bytes) -> list[ResourceProviders]:
    """Return what a file says; raise ConfigError with everything that is wrong."""
    document = read_document(data, _File, "EncryptionConfiguration", VERSIONS)
    wrong: list[str] = []
    found: list[ResourceProviders] = []
    kms_names: set[str] = set()
    if not document.resources:
        wrong.append("resources: Required value: at least one resources is required")
    for index, item in enumerate(document.resources):
        path = f"resources[{index}]"
        if not item.resources:
            wrong.append(f"{path}.resources: Required value: at least one {path}.resources is required")
        wrong += _resource_errors(item.resources, f"{path}.resources")
        if not wrong:
            wrong += _masked(item.resources, found)
        if not item.providers:
            wrong.append(f"{path}.providers: Required value: at least one {path}.providers is required")
        providers = []
        for number, provider in enumerate(item.providers):
            read = _provider(provider, f"{path}.providers[{number}]", wrong)
            if isinstance(read, KmsProvider):
                if read.name in kms_names:
                    text = f"duplicate KMS provider name {read.name}, names must be unique"
                    wrong.append(f"{path}.providers[{number}].kms.name: Invalid value: {quote(read.name)}: {text}")
                kms_names.add(read.name)
            if read is not None:
                providers.append(read)
        found.append(ResourceProviders(item.resources, tuple(providers)))
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return found


def _resource_errors(resources: Sequence[str], path: str) -> list[str]:
    wrong = []
    whole = f"{path}: Invalid value: [{','.join(map(quote, resources))}]:"
    if len(set(resources)) < len(resources):
        wrong.append(f"{whole} the same resource cannot be specified multiple times")
    for index, resource in enumerate(resources):
        at = f"{path}[{index}]: Invalid value: {quote(resource)}:"
        group = resource.partition(".")[2]
        if resource != resource.lower():
            wrong.append(f"{at} resource name should not contain capital letters")
        if resource == "*":
            wrong.append(
                f"{at} use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            )
        if resource in ("*.events.k8s.io", "events.events.k8s.io"):
            text = "objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
            wrong.append(f"{at} '*.events.k8s.io' {text}")
        if group == "extensions" and not resource.startswith("*."):
            wrong.append(f"{at} 'extensions' group has been removed and cannot be used for encryption")
        if resource in _WITHOUT_API:
            wrong.append(f"{at} resources which do not have REST API/s cannot be encrypted")
    if _overlap(resources):
        text = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed"
        wrong.append(f"{whole} {text} as they will be masked")
    return wrong


def _overlap(resources: Sequence[str]) -> bool:
    """Tell whether a wildcard of a list takes what another of its resources names too."""
    if "*.*" in resources:
        return len(resources) > 1
    named = [resource for resource in resources if not resource.startswith("*.")]
    return any(f"*.{resource.partition('.')[2]}" in resources for resource in named)


def _masked(resources: Sequence[str], before: Sequence[ResourceProviders]) -> list[str]:
    """Return the first resource that an earlier rule's wildcard takes already."""
    for resource in resources:
        for rule in before:
            for earlier in rule.resources:
                wide = earlier == "*.*" or (earlier.startswith("*.") and earlier[2:] == resource.partition(".")[2])
                if wide:
                    return [f"resource {quote(resource)} is masked by earlier rule {quote(earlier)}"]
    return []


def _provider(item: _Provider, path: str, wrong: list[str]) -> Provider | None:
    named = {kind: getattr(item, kind) for kind in (*_SIZES, "identity", "kms") if getattr(item, kind) is not None}
    if not named:
        text = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
        nothing = ",".join(f'"{name}":null' for name in ("AESGCM", "AESCBC", "Secretbox", "Identity", "KMS"))
        wrong.append(f"{path}: Invalid value: {{{nothing}}}: {text}")
        return None
    if len(named) > 1:  # Upstream repeats the provider here, keys and all.
        text = "more than one provider specified in a single element, should split into different list elements"
        wrong.append(f"{path}: Invalid value: {text}")
        return None
    kind, value = next(iter(named.items()))
    if kind == "identity":
        return KeyProvider("identity")
    if kind == "kms":
        return _kms(value, f"{path}.kms", wrong)
    return _keys(kind, value, f"{path}.{kind}", wrong)


def _keys(kind: str, item: _Keys, path: str, wrong: list[str]) -> KeyProvider:
    if not item.keys:
        wrong.append(f"{path}.keys: Required value: at least one keys is required")
    keys = []
    for index, key in enumerate(item.keys):
        at = f"{path}.keys[{index}]"
        if not key.name:
            wrong.append(f"{at}.name: Required value: name is a mandatory field for a key")
        if not key.secret:
            wrong.append(f"{at}.secret: Required value: secret is a mandatory field for a key")
            continue
        try:
            secret = base64.b64decode(key.secret.translate(_LINE_ENDS), validate=True)
        except binascii.Error:
            wrong.append(f'{at}.secret: Invalid value: "REDACTED": secrets must be base64 encoded')
            continue
        if len(secret) not in _SIZES[kind]:
            sizes = " ".join(map(str, _SIZES[kind]))
            text = f"secret is not of the expected length, got {len(secret)}, expected one of [{sizes}]"
            wrong.append(f'{at}.secret: Invalid value: "REDACTED": {text}')
        keys.append((key.name, secret))
    return KeyProvider(kind, tuple(keys))


def _kms(item: _Kms, path: str, wrong: list[str]) -> KmsProvider:
    if not item.name:
        wrong.append(f"{path}.name: Required value: name is a mandatory field for a provider")
    if ":" in item.name:
        text = f"invalid KMS provider name {item.name}, must not contain ':'"
        wrong.append(f"{path}.name: Invalid value: {quote(item.name)}: {text}")
    if item.api_version not in ("v1", "v2"):
        text = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported"
        wrong.append(f"{path}.apiVersion: Invalid value: {quote(item.api_version)}: {text}")
    elif item.api_version == "v2" and item.cachesize is not None:
        wrong.append(f"{path}.cachesize: Invalid value: {item.cachesize}: cachesize is not supported in v2")
    if not item.endpoint:
        wrong.append(f'{path}.endpoint: Invalid value: "": endpoint is a mandatory field for a kms')
    elif item.endpoint.startswith(":"):
        text = f"invalid endpoint for kms provider, error: parse {quote(item.endpoint)}: missing protocol scheme"
        wrong.append(f"{path}.endpoint: Invalid value: {quote(item.endpoint)}: {text}")
    elif (escape := _BAD_ESCAPE.search(item.endpoint)) is not None:
        text = f"parse {quote(item.endpoint)}: invalid URL escape {quote(escape[0])}"
        text = f"invalid endpoint for kms provider, error: {text}"
        wrong.append(f"{path}.endpoint: Invalid value: {quote(item.endpoint)}: {text}")
    elif not item.endpoint.lower().startswith("unix:"):
        scheme = item.endpoint.partition(":")[0] if ":" in item.endpoint else ""
        text = f'unsupported scheme "{scheme}" for KMS provider, only unix is supported'
        wrong.append(f"{path}.endpoint: Invalid value: {quote(item.endpoint)}: {text}")
    try:
        timeout = parse_duration(item.timeout)
    except ValueError as error:
        wrong.append(f"{path}.timeout: Invalid value: {quote(item.timeout)}: {error}")
        timeout = KMS_SECONDS
    if timeout <= 0:
        wrong.append(f"{path}.timeout: Invalid value: {quote(item.timeout)}: timeout should be a positive value")
    if item.api_version == "v1" and not wrong:
        text = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."
        wrong.append(f"{text}  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.")
    return KmsProvider(item.name, item.endpoint, timeout)
