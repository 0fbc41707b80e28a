"""metadata.managedFields as data: who owns which fields, since when, by which operation.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from haven.apimachinery.apply.fieldset import BadFieldSet, FieldSet, canonical, union
from haven.apimachinery.goformat import quote

__all__ = ["UPDATE_MANAGERS_MAX", "InvalidManagedFields", "Managed", "Manager", "Owned", "cap", "decode", "encode"]

UPDATE_MANAGERS_MAX = 10
ANCIENT = "ancient-changes"
Entry = dict[str, Any]


class InvalidManagedFields(ValueError):
    """The entries are not managedFields that this server could have written; the message is upstream's."""


class Manager(NamedTuple):
    """Who owns fields. Appliers are the same in every version; `api_version` is "" for them."""

    name: str
    operation: str
    api_version: str
    subresource: str

    @property
    def identifier(self) -> str:
        """The text that upstream identifies the manager with; it decides orders."""
        parts = {
            "manager": self.name, "operation": self.operation, "apiVersion": self.api_version,
            "subresource": self.subresource,
        }  # fmt: skip
        return json.dumps({name: text for name, text in parts.items() if text}, separators=(",", ":"))

    def __str__(self) -> str:
        text = quote(self.name)
        if self.subresource:
            text += f" with subresource {quote(self.subresource)}"
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


class Owned(NamedTuple):
    """What a manager owns, in terms of one API version; `time` is None if it is not known."""

    fields: FieldSet
    api_version: str
    time: str | None


Managed = dict[Manager, Owned]


def manager_of(name: str, operation: str, api_version: str, subresource: str) -> Manager:
    """Return the identity of a manager."""
    return Manager(name or "unknown", operation, api_version if operation == "Update" else "", subresource)


def decode(entries: list[Entry] | None, *, trusted: bool) -> Managed:
    """Return managedFields as data; raise InvalidManagedFields. `trusted` entries are our own: sets are canonical."""
    result: Managed = {}
    for index, entry in enumerate(entries or ()):
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update"):
            raise InvalidManagedFields("operation must be `Apply` or `Update`")
        api_version = entry.get("apiVersion", "")
        if not api_version:
            raise InvalidManagedFields("apiVersion must not be empty")
        fields_type = entry.get("fieldsType", "")
        if fields_type != "FieldsV1":
            if not fields_type:
                raise InvalidManagedFields(f"missing fieldsType in managed fields entry {index}")
            raise InvalidManagedFields(f"invalid fieldsType {quote(fields_type)} in managed fields entry {index}")
        fields = entry.get("fieldsV1")
        if not trusted or fields is None:
            try:
                fields = canonical(fields)
            except BadFieldSet as error:
                raise InvalidManagedFields(f"error decoding set: {error}") from None
        manager = Manager(
            entry.get("manager", ""), operation, api_version if operation == "Update" else "",
            entry.get("subresource", ""),
        )  # fmt: skip
        result[manager] = Owned(fields, api_version, entry.get("time"))
    return result


def encode(managed: Managed) -> list[Entry]:
    """Return managedFields as objects carry them, in upstream's order."""
    if len(managed) > 1:
        items = sorted(managed.items(), key=_order)
    else:
        items = list(managed.items())
    return [_entry(manager, owned) for manager, owned in items]


def _order(item: tuple[Manager, Owned]) -> tuple[str, str, str, str, str]:
    manager, owned = item
    return (manager.operation, (owned.time or "")[:19], manager.name, owned.api_version, manager.subresource)


def _entry(manager: Manager, owned: Owned) -> Entry:
    entry: Entry = {"manager": manager.name} if manager.name else {}
    entry["operation"] = manager.operation
    entry["apiVersion"] = owned.api_version
    if owned.time is not None:
        entry["time"] = owned.time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = owned.fields
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def cap(managed: Managed, *, limit: int = UPDATE_MANAGERS_MAX) -> Managed:
    """Return managedFields with the oldest updaters joined under one name per version, until few enough are left."""
    updaters = [manager for manager in managed if manager.operation == "Update"]
    if len(updaters) <= limit:
        return managed
    updaters.sort(key=lambda manager: ((managed[manager].time or "")[:19], manager.identifier))
    result = dict(managed)
    left = len(updaters)
    firsts: dict[str, Manager] = {}
    for manager in updaters:
        if left <= limit:
            break
        owned = result[manager]
        version = owned.api_version
        first = firsts.get(version)
        if first is None:
            firsts[version] = manager
            continue
        bucket = Manager(ANCIENT, "Update", version, "")
        if bucket not in result:
            result[bucket] = result.pop(first)
        result[bucket] = Owned(union(owned.fields, result[bucket].fields), version, owned.time)
        del result[manager]
        left -= 1
    return result
