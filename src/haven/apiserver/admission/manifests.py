"""Policies and webhooks that an operator keeps in files, out of reach of the API: in force before any other.

Each admission plugin that takes them has a folder of its own, named by `staticManifestsDir` in its configuration. All
files in it are read when the server starts, and nothing is served if one is wrong; later changes are taken over if
they are good. Behind the feature gate ManifestBasedAdmissionControlConfig.
Source: https://kep.k8s.io/5793 and
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#manifest-based-admission-control
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from haven import telemetry
from haven.api import scheme
from haven.api.strategies import strategy_for
from haven.apimachinery import fielderrors, serialization
from haven.apimachinery.codecs import yaml
from haven.apimachinery.goformat import aggregate, quote
from haven.apimachinery.schema import check, normalize, schema_for
from haven.apiserver.configfiles import ConfigError
from haven.clock import Clock

__all__ = ["GATE", "Loaded", "Manifests", "directory_of", "load_policies", "load_webhooks"]

GATE = "ManifestBasedAdmissionControlConfig"
RELOAD_SECONDS = 1.0
"""How soon a change of the folder is seen; a look costs as much as listing it."""
_SUFFIX = ".static.k8s.io"
_ENDINGS = frozenset((".yaml", ".yml", ".json"))
_SEPARATOR = re.compile(rb"^---[ \t\r]*(?:#.*)?$", re.MULTILINE)
_GROUP_VERSIONS = ("admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1")
_log = telemetry.logger("apiserver")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The objects of a folder by type, each sorted by name. `digest` is that of all files, empty without any."""

    objects: Mapping[type[Any], Sequence[Any]]
    digest: str

    def of(self, kind: type[Any]) -> Sequence[Any]:
        return self.objects.get(kind, ())


def directory_of(directory: str, states: Mapping[str, bool]) -> str:
    """Return the folder that a plugin's configuration names, if it may; raise ConfigError."""
    if not directory:
        return ""
    path = fielderrors.Path("staticManifestsDir")
    if not states.get(GATE, False):
        words = f"staticManifestsDir requires the {GATE} feature gate to be enabled"
        raise ConfigError(str(fielderrors.forbidden(path, words)))
    if not Path(directory).is_absolute():
        raise ConfigError(str(fielderrors.invalid(path, directory, "must be an absolute file path")))
    try:
        is_directory = Path(directory).stat().st_mode & 0o170000 == 0o040000
    except OSError as error:
        words = f"unable to read: stat {directory}: {(error.strerror or '').lower()}"
        raise ConfigError(str(fielderrors.invalid(path, directory, words))) from None
    if not is_directory:
        raise ConfigError(str(fielderrors.invalid(path, directory, "must be a directory")))
    return directory


def load_webhooks(directory: str, kind: type[Any]) -> Loaded:
    """Return the webhook configurations of a folder; raise ConfigError."""

    def check_item(item: Any, file: str) -> None:
        for webhook in item.webhooks:
            config = webhook.client_config
            who = f"webhook {quote(webhook.name)} in {quote(item.metadata.name)} (file {quote(file)})"
            if config.service is not None:
                words = "clientConfig.service is not supported for static manifests; use clientConfig.url instead"
                raise ConfigError(f"{who}: {words}")
            if not config.url:
                raise ConfigError(f"{who}: clientConfig.url is required for static manifests")

    return _load(directory, (kind,), check_item)


def load_policies(directory: str, policy: type[Any], binding: type[Any]) -> Loaded:
    """Return the policies and bindings of a folder; raise ConfigError."""

    def check_item(item: Any, file: str) -> None:
        name = item.metadata.name
        if isinstance(item, policy):
            if item.spec.param_kind is not None:
                kind = policy.__name__
                raise ConfigError(f"{kind} {quote(name)}: spec.paramKind is not supported for static manifests")
            return
        of = item.spec.policy_name
        if not of.endswith(_SUFFIX):
            words = f"spec.policyName {quote(of)} must end with {quote(_SUFFIX)}"
            raise ConfigError(f"binding {quote(name)}: {words}")
        if item.spec.param_ref is not None:
            raise ConfigError(f"binding {quote(name)}: spec.paramRef is not supported for static manifests")

    loaded = _load(directory, (policy, binding), check_item)
    names = {one.metadata.name for one in loaded.of(policy)}
    for one in loaded.of(binding):
        if one.spec.policy_name not in names:
            words = f"references policy {quote(one.spec.policy_name)} which does not exist in the manifest directory"
            raise ConfigError(f"binding {quote(one.metadata.name)} {words}")
    return loaded


def _load(directory: str, kinds: Sequence[type[Any]], check_item: Callable[[Any, str], None]) -> Loaded:
    found: dict[type[Any], list[Any]] = {kind: [] for kind in kinds}
    seen: dict[type[Any], dict[str, str]] = {kind: {} for kind in kinds}
    digest = hashlib.sha256()
    is_empty = True
    for path in _files(directory):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"failed to read file {quote(str(path))}: {error.strerror}") from None
        if not data:
            continue
        is_empty = False
        digest.update(data + b"\0")
        for document in filter(None, map(bytes.strip, _SEPARATOR.split(data))):
            try:
                for item in _items(_tree(document), document, kinds):
                    _check_name(item.metadata.name, str(path), seen[type(item)])
                    check_item(item, str(path))
                    found[type(item)].append(item)
            except ConfigError as error:
                raise ConfigError(f"error loading {path}: {error}") from None
    for items in found.values():
        items.sort(key=lambda item: str(item.metadata.name))
    return Loaded(found, "" if is_empty else f"sha256:{digest.hexdigest()}")


def _files(directory: str) -> list[Path]:
    try:
        paths = sorted(Path(directory).iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise ConfigError(f"failed to read manifest directory {quote(directory)}: {error.strerror}") from None
    return [path for path in paths if path.suffix.lower() in _ENDINGS and not path.is_dir()]


def _tree(document: bytes) -> dict[str, Any]:
    try:
        tree, repeated = yaml.parse(document)
    except yaml.InvalidYAML as error:
        raise ConfigError(f"couldn't get version/kind; json parse error: {error}") from None
    if repeated:
        raise ConfigError(f"strict decoding error: {', '.join(repeated)}")
    if not isinstance(tree, dict):
        raise ConfigError("couldn't get version/kind; json parse error: it is no object")
    return tree


def _items(tree: Any, document: bytes, kinds: Sequence[type[Any]]) -> list[Any]:
    """Return what a document holds: one object, or those of a list; each defaulted and sound."""
    if not isinstance(tree, dict) or not tree.get("kind"):
        shown = document.decode(errors="replace")
        raise ConfigError(f"Object 'Kind' is missing in '{shown}'")
    said, version = str(tree["kind"]), str(tree.get("apiVersion") or "")
    if said == "List" and version in ("v1", "meta.k8s.io/v1"):
        members: list[Any] = []
        for one in tree.get("items") or ():
            if not isinstance(one, dict) or not _is_registered(one):
                raise ConfigError(f"failed to decode list item: {_unregistered(one)}")
            members.extend(_items(one, msgspec.json.encode(one), kinds))
        return members
    for kind in kinds:
        if version == _GROUP_VERSIONS[0] and said == kind.__name__:
            return [_sound(tree, kind)]
        if version == _GROUP_VERSIONS[0] and said == f"{kind.__name__}List":
            resource = scheme.resource_of(kind)
            own = {"apiVersion": version, "kind": resource.kind}
            return [_sound({**one, **own}, kind) for one in tree.get("items") or ()]
    if not _is_registered(tree):
        raise ConfigError(_unregistered(tree))
    raise ConfigError(f"unsupported resource type *{version.rpartition('/')[2]}.{said}")


def _is_registered(tree: Mapping[str, Any]) -> bool:
    group, _, version = str(tree.get("apiVersion") or "").rpartition("/")
    if f"{group}/{version}" not in _GROUP_VERSIONS:
        return False
    try:
        scheme.kind_type(group, version, str(tree.get("kind")).removesuffix("List"))
    except KeyError:
        return False
    return True


def _unregistered(tree: Any) -> str:
    said = tree if isinstance(tree, dict) else {}
    kind, version = str(said.get("kind") or ""), str(said.get("apiVersion") or "")
    return f"no kind {quote(kind)} is registered for version {quote(version)}"


def _sound(tree: dict[str, Any], kind: type[Any]) -> Any:
    resource = scheme.resource_of(kind)
    schema = schema_for(resource.group, resource.version, resource.kind)
    assert schema is not None, kind
    findings = check(tree, schema, None)
    if findings.error is not None:
        raise ConfigError(str(findings.error))
    if findings.strict:
        raise ConfigError(f"strict decoding error: {', '.join(findings.strict)}")
    tree = tree if findings.tree is None else findings.tree
    item: Any = serialization.decode(msgspec.json.encode(normalize(tree, schema) if findings.dirty else tree), kind)
    strategy = strategy_for(resource)
    strategy.default(item)
    errors = strategy.validate(item)
    if errors:
        raise ConfigError(f"{resource.kind} {quote(item.metadata.name)}: {aggregate(errors)}")
    return item


def _check_name(name: str, file: str, seen: dict[str, str]) -> None:
    if not name.endswith(_SUFFIX):
        raise ConfigError(f"{quote(name)} in file {quote(file)} must have a name ending with {quote(_SUFFIX)}")
    before = seen.get(name)
    if before is not None:
        words = f"found in file {quote(file)} (previously seen in {quote(before)})"
        raise ConfigError(f"duplicate name {quote(name)} {words}")
    seen[name] = file


class Manifests:
    """The folder of one plugin. Its objects are given to `apply` at the start and whenever they change."""

    def __init__(
        self, plugin: str, directory: str, load: Callable[[str], Loaded], apply: Callable[[Loaded], None], clock: Clock
    ) -> None:
        self.plugin = plugin
        self._directory = directory
        self._load = load
        self._apply = apply
        self._clock = clock
        self._stamp: object = None
        self._read = ""
        self.digest = ""
        """That of what is in force."""
        self.reloads = self.failures = 0
        self.reloaded_at = self.failed_at = 0.0
        """When that was last, in seconds since 1970."""

    def begin(self, what: str) -> None:
        """Take the folder over for the first time; raise ConfigError."""
        try:
            self._stamp = self._look_at()
            self._take(self._load(self._directory))
        except ConfigError as error:
            words = f"failed to load static {what} manifests from {quote(self._directory)}: {error}"
            raise ConfigError(f"failed to initialize admission plugin {quote(self.plugin)}: {words}") from None

    async def follow(self) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            await self._clock.sleep(RELOAD_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Take the folder over if it has changed and is good; else what was good before goes on."""
        try:
            stamp = self._look_at()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            loaded = await asyncio.to_thread(self._load, self._directory)
            if loaded.digest != self._read:
                self._take(loaded)
        except ConfigError as error:
            self.failures += 1
            self.failed_at = self._clock.now_seconds()
            _log.error("Changed manifests are not used.", plugin=self.plugin, error=str(error))

    def _look_at(self) -> object:
        """Return what differs after any change of the folder."""
        try:
            return [(path.name, (found := path.stat()).st_mtime_ns, found.st_size) for path in _files(self._directory)]
        except OSError as error:
            raise ConfigError(f"failed to read manifest directory {quote(self._directory)}: {error.strerror}") from None

    def _take(self, loaded: Loaded) -> None:
        self._read = loaded.digest
        self._apply(loaded)
        self.digest = loaded.digest
        self.reloads += 1
        self.reloaded_at = self._clock.now_seconds()
        count = sum(map(len, loaded.objects.values()))
        _log.info("Admission manifests are in force.", plugin=self.plugin, objects=count)
