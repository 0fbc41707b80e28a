"""The configuration of PodSecurity: the levels of namespaces without labels, and what is not checked at all.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, invalid
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors
from haven.apiserver.admission.configuration import raise_first
from haven.apiserver.admission.podsecurity.plugin import Exemptions
from haven.apiserver.admission.podsecurity.policy import (
    LEVEL_NAMES,
    Level,
    LevelVersion,
    Policy,
    parse_level,
    parse_minor,
)
from haven.apiserver.configfiles import Document, read_document

__all__ = ["parse_pod_security"]

_VERSIONS = frozenset(f"pod-security.admission.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


class _Defaults(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, kw_only=True, frozen=True):
    enforce: str = ""
    enforce_version: str = ""
    audit: str = ""
    audit_version: str = ""
    warn: str = ""
    warn_version: str = ""


class _Exemptions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    usernames: list[str] | None = None
    namespaces: list[str] | None = None
    runtime_classes: list[str] | None = None


class _Configuration(Document, frozen=True):
    defaults: _Defaults = msgspec.field(default_factory=_Defaults)
    exemptions: _Exemptions = msgspec.field(default_factory=_Exemptions)


def parse_pod_security(document: bytes | None) -> tuple[Policy, Exemptions]:
    """Return what a configuration says; raise ConfigError."""
    if not document:
        return Policy(), Exemptions()
    found = read_document(document, _Configuration, "PodSecurityConfiguration", _VERSIONS)
    errors: ErrorList = []
    parts = {mode: _mode(mode, found.defaults, errors) for mode in ("enforce", "warn", "audit")}
    exempt, path = found.exemptions, Path("exemptions")
    errors += _names(path.child("namespaces"), exempt.namespaces or (), dns1123_label_errors)
    errors += _names(path.child("runtimeClasses"), exempt.runtime_classes or (), dns1123_subdomain_errors)
    errors += _names(path.child("usernames"), exempt.usernames or (), _user_name_errors)
    raise_first(errors)
    return Policy(**parts), Exemptions(
        usernames=frozenset(exempt.usernames or ()),
        namespaces=frozenset(exempt.namespaces or ()),
        runtime_classes=frozenset(exempt.runtime_classes or ()),
    )


def _mode(mode: str, defaults: _Defaults, errors: ErrorList) -> LevelVersion:
    path = Path("defaults")
    name: str = getattr(defaults, mode) or Level.PRIVILEGED.label
    version: str = getattr(defaults, f"{mode}_version") or "latest"
    level, minor = parse_level(name), parse_minor(version)
    if level is None:
        errors.append(invalid(path.child(mode), name, f"must be one of {', '.join(LEVEL_NAMES)}"))
    if minor is None:
        errors.append(invalid(path.child(f"{mode}-version"), version, 'must be "latest" or "v1.x"'))
    return LevelVersion(level or Level.PRIVILEGED, 0 if minor is None else minor)


def _names(path: Path, names: Sequence[str], complaints: Callable[[str], Iterable[str]]) -> ErrorList:
    errors: ErrorList = []
    for index, name in enumerate(names):
        if found := list(complaints(name)):
            errors.append(invalid(path.index(index), name, ", ".join(found)))
        elif name in names[:index]:
            errors.append(duplicate(path.index(index), name))
    return errors


def _user_name_errors(name: str) -> Iterable[str]:
    return () if name else ("username must not be empty",)
