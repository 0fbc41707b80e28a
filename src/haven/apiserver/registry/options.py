"""Query parameters of requests to resources, decoded and checked with upstream's complaints.

Source: meta.k8s.io's ListOptions, GetOptions, CreateOptions, UpdateOptions, PatchOptions and DeleteOptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from haven.apimachinery import apierrors, meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.gonumbers import NotANumber, parse_int
from haven.apimachinery.names import UID
from haven.apimachinery.selectors import FieldSelector, LabelSelector, SelectorError, parse_fields, parse_labels

__all__ = [
    "IGNORE",
    "STRICT",
    "UNREAD",
    "WARN",
    "DeleteParameters",
    "ListParameters",
    "WriteParameters",
    "delete_parameters",
    "field_manager_errors",
    "list_parameters",
    "parse_revision",
    "write_parameters",
]

Query = Mapping[str, Sequence[str]]

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"
_FIELD_MANAGER_MAX = 128
_EXACT, _NOT_OLDER = "Exact", "NotOlderThan"


def _text(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def _integer(query: Query, name: str, bits: int = 64) -> int | None:
    values = query.get(name)
    if not values:
        return None
    try:
        return parse_int(values[0], bits)
    except NotANumber as error:
        raise apierrors.BadRequest(str(error)) from None


def _boolean(query: Query, name: str) -> bool | None:
    """Everything but "0" and "false" is true, even nothing."""
    values = query.get(name)
    if values is None:
        return None
    return not values or values[0].lower() not in ("0", "false")


def parse_revision(text: str) -> int:
    """Return a resource version as a number, 0 for ""; raise ValueError with upstream's words."""
    if text == "":
        return 0
    if not re.fullmatch("[0-9]+", text, re.ASCII):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    number = int(text)
    if number >= 1 << 64:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return number


# ---- list and watch


@dataclass(frozen=True, slots=True)
class ListParameters:
    """What a list, a watch or a deletecollection asks for. Selectors are None when they select everything."""

    labels: LabelSelector | None = None
    fields: FieldSelector | None = None
    watch: bool = False
    allow_watch_bookmarks: bool = False
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_seconds: int | None = None
    limit: int = 0
    continue_: str = ""
    send_initial_events: bool | None = None
    legacy_initial_events: bool = False


_EVERYTHING = ListParameters()


def list_parameters(query: Query, *, force_watch: bool = False) -> ListParameters:
    """Return the parameters of a list or a watch; raise BadRequest or Invalid."""
    if not query and not force_watch:
        return _EVERYTHING
    timeout_seconds, limit = _integer(query, "timeoutSeconds"), _integer(query, "limit")
    try:
        labels = parse_labels(_text(query, "labelSelector"))
        fields = parse_fields(_text(query, "fieldSelector"))
    except SelectorError as error:
        raise apierrors.BadRequest(str(error)) from None
    parameters = ListParameters(
        labels=None if labels.is_empty else labels,
        fields=None if fields.is_empty else fields,
        watch=bool(_boolean(query, "watch")) or force_watch,
        allow_watch_bookmarks=bool(_boolean(query, "allowWatchBookmarks")),
        resource_version=_text(query, "resourceVersion"),
        resource_version_match=_text(query, "resourceVersionMatch"),
        timeout_seconds=timeout_seconds,
        limit=limit or 0,
        continue_=_text(query, "continue"),
        send_initial_events=_boolean(query, "sendInitialEvents"),
    )
    legacy = (
        parameters.watch
        and parameters.send_initial_events is None
        and not parameters.resource_version_match
        and parameters.resource_version in ("", "0")
    )
    if legacy:
        parameters = replace(
            parameters, send_initial_events=True, resource_version_match=_NOT_OLDER, legacy_initial_events=True
        )
    errors = _watch_errors(parameters) if parameters.watch else _list_errors(parameters)
    if errors:
        raise apierrors.Invalid.of(apierrors.GroupKind("meta.k8s.io", "ListOptions"), "", errors)
    return parameters


def _list_errors(parameters: ListParameters) -> ErrorList:
    errors: ErrorList = []
    match = parameters.resource_version_match
    path = Path("resourceVersionMatch")
    if match:
        if not parameters.resource_version:
            errors.append(forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if parameters.continue_:
            errors.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
        if match not in (_EXACT, _NOT_OLDER):
            errors.append(not_supported(path, match, [_EXACT, _NOT_OLDER, ""]))
        if match == _EXACT and parameters.resource_version == "0":
            errors.append(forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if parameters.send_initial_events is not None:
        errors.append(forbidden(Path("sendInitialEvents"), "sendInitialEvents is forbidden for list"))
    return errors


def _watch_errors(parameters: ListParameters) -> ErrorList:
    errors: ErrorList = []
    match = parameters.resource_version_match
    path = Path("resourceVersionMatch")
    if parameters.send_initial_events is not None and match != _NOT_OLDER:
        errors.append(forbidden(path, f"sendInitialEvents requires setting resourceVersionMatch to {_NOT_OLDER}"))
    if match:
        if parameters.send_initial_events is None:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            errors.append(forbidden(path, text))
        if match != _NOT_OLDER:
            errors.append(not_supported(path, match, [_NOT_OLDER]))
        if parameters.continue_:
            errors.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    return errors


# ---- create, update, patch


@dataclass(frozen=True, slots=True)
class WriteParameters:
    """The options of a create, an update or a patch."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = WARN
    force: bool | None = None
    tree: Mapping[str, Any] = field(default_factory=dict)


_PLAIN_WRITES = {
    kind: WriteParameters(tree={"kind": kind, "apiVersion": "meta.k8s.io/v1"})
    for kind in ("CreateOptions", "UpdateOptions")
}


def write_parameters(query: Query, kind: str, *, is_apply: bool = False) -> WriteParameters:
    """Return the options (`kind` is CreateOptions, UpdateOptions or PatchOptions); raise Invalid."""
    if not query and kind in _PLAIN_WRITES:
        return _PLAIN_WRITES[kind]
    dry_run = list(query.get("dryRun", ()))
    manager = _text(query, "fieldManager")
    validation = _text(query, "fieldValidation")
    force = _boolean(query, "force")
    errors: ErrorList = []
    if kind == "PatchOptions":
        if is_apply:
            if not manager:
                errors.append(required(Path("fieldManager"), "is required for apply patch"))
        elif force is not None:
            errors.append(forbidden(Path("force"), "may not be specified for non-apply patch"))
    errors += field_manager_errors(manager, Path("fieldManager"))
    errors += _dry_run_errors(dry_run)
    if validation not in ("", IGNORE, STRICT, WARN):
        errors.append(not_supported(Path("fieldValidation"), validation, ["", IGNORE, STRICT, WARN]))
    if errors:
        raise apierrors.Invalid.of(apierrors.GroupKind("meta.k8s.io", kind), "", errors)
    tree: dict[str, Any] = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if dry_run:
        tree["dryRun"] = dry_run
    if kind == "PatchOptions" and force is not None:
        tree["force"] = force
    if manager:
        tree["fieldManager"] = manager
    if validation:
        tree["fieldValidation"] = validation
    return WriteParameters(
        dry_run=bool(dry_run), field_manager=manager, field_validation=validation or WARN, force=force, tree=tree
    )


def field_manager_errors(manager: str, path: Path) -> ErrorList:
    """Return what is wrong with the name of a field manager."""
    errors: ErrorList = []
    if len(manager.encode()) > _FIELD_MANAGER_MAX:
        errors.append(too_long(path, "", _FIELD_MANAGER_MAX))
    position = 0
    for char in manager:
        if not (char.isprintable() and (char == " " or not char.isspace())):
            shown = f"U+{ord(char):04X}"
            errors.append(invalid(path, manager, f"invalid character {shown} (at position {position})"))
        position += len(char.encode())
    return errors


def _dry_run_errors(dry_run: list[str]) -> ErrorList:
    if all(value == "All" for value in dry_run):
        return []
    return [not_supported(Path("dryRun"), dry_run, ["All"])]


# ---- delete


@dataclass(slots=True)
class DeleteParameters:
    """The options of a delete; the deletion itself may fill in the grace period."""

    grace_period_seconds: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    dry_run: bool = False
    unread: bool = False
    """Whether it is to go although it cannot be read."""
    tree: Mapping[str, Any] = field(default_factory=dict)

    def copy(self) -> DeleteParameters:
        """Return the same options to be filled in for another object."""
        return replace(self)


UNREAD = "ignoreStoreReadErrorWithClusterBreakingPotential"


def delete_parameters(
    query: Query, body: meta.DeleteOptions | None, *, is_gated: bool, of_collection: bool = False
) -> DeleteParameters:
    """Return the options, from the body if there is one, else from the query; raise BadRequest or Invalid.

    `is_gated` tells whether the gate AllowUnsafeMalformedObjectDeletion is on.
    """
    if body is None:
        body = meta.DeleteOptions(
            grace_period_seconds=_integer(query, "gracePeriodSeconds"),
            orphan_dependents=_boolean(query, "orphanDependents"),
            propagation_policy=query["propagationPolicy"][0] if query.get("propagationPolicy") else None,
            dry_run=list(query.get("dryRun", ())),
            ignore_store_read_error_with_cluster_breaking_potential=_boolean(query, UNREAD),
            preconditions=meta.Preconditions(
                uid=UID(query["uid"][0]) if query.get("uid") else None,
                resource_version=query["resourceVersion"][0] if query.get("resourceVersion") else None,
            )
            if query.get("uid") or query.get("resourceVersion")
            else None,
        )
    errors: ErrorList = []
    policy = body.propagation_policy
    path = Path("propagationPolicy")
    if body.orphan_dependents is not None and policy is not None:
        errors.append(invalid(path, policy, "orphanDependents and deletionPropagation cannot be both set"))
    if policy not in (None, "Foreground", "Background", "Orphan"):
        errors.append(not_supported(path, policy, ["Foreground", "Background", "Orphan", "nil"]))
    errors += _dry_run_errors(body.dry_run)
    if not is_gated:
        body = msgspec.structs.replace(body, ignore_store_read_error_with_cluster_breaking_potential=None)
    unread = bool(body.ignore_store_read_error_with_cluster_breaking_potential)
    if unread:
        given = {
            "dryRun": bool(body.dry_run),
            "propagationPolicy": policy is not None,
            "orphanDependents": body.orphan_dependents is not None,
            "gracePeriodSeconds": body.grace_period_seconds is not None,
            "preconditions": body.preconditions is not None,
        }
        errors += [invalid(Path(UNREAD), True, f"cannot be set together with .{name}") for name in given if given[name]]
        if of_collection and not errors:
            text = "is not allowed with DELETECOLLECTION, try again after removing the option"
            errors.append(invalid(Path(UNREAD), True, text))
    if errors:
        raise apierrors.Invalid.of(apierrors.GroupKind("meta.k8s.io", "DeleteOptions"), "", errors)
    preconditions = body.preconditions or meta.Preconditions()
    tree = msgspec.to_builtins(body)
    tree.update(kind="DeleteOptions", apiVersion="meta.k8s.io/v1")
    return DeleteParameters(
        grace_period_seconds=body.grace_period_seconds,
        uid=preconditions.uid,
        resource_version=preconditions.resource_version,
        orphan_dependents=body.orphan_dependents,
        propagation_policy=policy,
        dry_run=bool(body.dry_run),
        unread=unread,
        tree=tree,
    )
