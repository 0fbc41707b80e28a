"""Configuration files of the API server: read strictly, and read again when they change.

Each is a YAML or JSON document with an apiVersion and a kind. Unknown fields are errors: a misspelt rule is worse than
a server that does not start. Only where upstream goes on with a warning is that done here too.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from haven import telemetry
from haven.apimachinery.codecs import yaml
from haven.clock import Clock

__all__ = ["ConfigError", "Document", "FollowedFile", "read_document"]

T = TypeVar("T", bound="Document")
_log = telemetry.logger("apiserver")


class ConfigError(ValueError):
    """A configuration file cannot be used; the message says why."""


class Document(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What every configuration file begins with."""

    api_version: str = ""
    kind: str = ""


def read_document(
    data: bytes, shape: type[T], kind: str, versions: Collection[str], *, warn: Callable[[str], None] | None = None
) -> T:
    """Return a file's content; raise ConfigError. With `warn`, unknown and repeated fields are told and left out."""
    try:
        tree, repeated = yaml.parse(data)
    except yaml.InvalidYAML as error:
        raise ConfigError(str(error)) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"it holds no {kind}")
    if tree.get("apiVersion") not in versions or tree.get("kind") != kind:
        found = f'kind "{tree.get("kind", "")}" in version "{tree.get("apiVersion", "")}"'
        raise ConfigError(f"no {found}; want {kind} of {' or '.join(sorted(versions))}")
    wrong = list(repeated)
    tree.pop("metadata", None)
    _leave_out_nulls(tree)
    while True:
        try:
            document = msgspec.convert(tree, shape)
            break
        except msgspec.ValidationError as error:
            text = _shown(str(error))
            unknown = _UNKNOWN.fullmatch(str(error))
            if warn is None or unknown is None:
                raise ConfigError(f"strict decoding error: {', '.join([*wrong, text])}") from None
            wrong.append(text)
            _leave_out(tree, unknown[2] or "", unknown[1])
    if wrong:
        text = f"strict decoding error: {', '.join(wrong)}"
        if warn is None:
            raise ConfigError(text)
        warn(text)
    return document


_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")


def _leave_out_nulls(tree: Any) -> None:
    """Remove fields without a value: they are as good as not there."""
    if isinstance(tree, list):
        for item in tree:
            _leave_out_nulls(item)
    elif isinstance(tree, dict):
        for name in [name for name, value in tree.items() if value is None]:
            del tree[name]
        for value in tree.values():
            _leave_out_nulls(value)


def _leave_out(tree: Any, path: str, name: str) -> None:
    """Remove the fields of a name from all objects at a path such as rules[...].resources[...]."""
    head, _, rest = path.partition(".")
    if isinstance(tree, list):
        for item in tree:
            _leave_out(item, path, name)
    elif isinstance(tree, dict):
        if not path:
            tree.pop(name, None)
        else:
            _leave_out(tree.get(head.partition("[")[0]), rest, name)


def _shown(text: str) -> str:
    """Return what is wrong with a document, an unknown field in upstream's words."""
    unknown = _UNKNOWN.fullmatch(text)
    if unknown is None:
        return text
    name, path = unknown.groups()
    return f'unknown field "{path}.{name}"' if path else f'unknown field "{name}"'


class FollowedFile:
    """A file whose content is taken over when it changes, if it is good; else what was good before goes on."""

    def __init__(
        self,
        path: Path,
        apply: Callable[[bytes], None],
        *,
        clock: Clock,
        every_seconds: float,
        tries_again: bool = False,
    ) -> None:
        self.path = path
        self._tries_again = tries_again
        """Whether content that could not be taken over may be fine the next time, as it depends on others."""
        self._apply = apply
        self._clock = clock
        self._every_seconds = every_seconds
        self.digest = ""
        self.reloads = self.failures = 0
        self.reloaded_at = self.failed_at = 0.0
        """When that was last, in seconds since 1970."""

    def load(self) -> None:
        """Take the content over for the first time; raise ConfigError."""
        data = self._read()
        self._apply(data)
        self.digest = hashlib.sha256(data).hexdigest()

    async def follow(self) -> None:
        """Look at the file again and again, until cancelled."""
        while True:
            await self._clock.sleep(self._every_seconds)
            await self.look()

    async def look(self) -> None:
        """Take the content over if it has changed."""
        before = self.digest
        try:
            data = await asyncio.to_thread(self._read)
            digest = hashlib.sha256(data).hexdigest()
            if digest == self.digest:
                return
            self.digest = digest
            self._apply(data)
        except ConfigError as error:
            if self._tries_again:
                self.digest = before
            self.failures += 1
            self.failed_at = self._clock.now_seconds()
            _log.error("A changed configuration file is not used.", path=str(self.path), error=str(error))
            return
        self.reloads += 1
        self.reloaded_at = self._clock.now_seconds()
        _log.info("A changed configuration file is in force.", path=str(self.path))

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from None
