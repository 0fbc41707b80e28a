"""StorageVersions: what is wrong with them, how they are written.

Source: KEP-2339 and the behaviour of pkg/apis/apiserverinternal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.apiserverinternal import v1alpha1
from haven.api.core.validation.metadata import validate_meta, validate_qualified_name
from haven.api.kinds import keep_metadata
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, invalid, required
from haven.apimachinery.goformat import show
from haven.apimachinery.validation.names import dns1035_label_errors, dns1123_subdomain_errors

__all__ = ["STRATEGIES"]

_STATUS = Path("status")
_NO_FORM = (
    "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?') with an optional DNS subdomain prefix and '/' "
    "(e.g. 'example.com/MyVersion')"
)


def _name_rule(name: str, _prefix: bool = False) -> list[str]:
    group, dot, resource = name.rpartition(".")
    if not dot:
        return ["name must be in the form of <group>.<resource>"]
    errors = [f"the group segment {text}" for text in dns1123_subdomain_errors(group)]
    return errors + [f"the resource segment {text}" for text in dns1035_label_errors(resource)]


def _version_errors(text: str) -> list[str]:
    parts = text.split("/")
    if len(parts) > 2:
        return [_NO_FORM]
    errors: list[str] = []
    if len(parts) == 2:
        errors += _part("group", parts[0], dns1123_subdomain_errors(parts[0]))
    return errors + _part("version", parts[-1], dns1035_label_errors(parts[-1]))


def _part(name: str, value: str, complaints: Sequence[str]) -> list[str]:
    if not value:
        return [f"{name} part: must be non-empty"]
    return [",".join(f"{name} part: {text}" for text in complaints)] if complaints else []


def _check_server(server: v1alpha1.ServerStorageVersion, path: Path) -> ErrorList:
    place, encoding = path.child("apiServerID"), server.encoding_version
    errors = [invalid(place, server.api_server_id, text) for text in dns1123_subdomain_errors(server.api_server_id)]
    if unfit := _version_errors(encoding):
        errors.append(invalid(path.child("encodingVersion"), encoding, ",".join(unfit)))
    place = path.child("decodableVersions")
    for index, version in enumerate(server.decodable_versions):
        if unfit := _version_errors(version):
            errors.append(invalid(place.index(index), version, ",".join(unfit)))
    if encoding not in server.decodable_versions:
        words = f"decodableVersions must include encodingVersion {encoding}"
        errors.append(invalid(place, server.decodable_versions or None, words))
    for index, version in enumerate(server.served_versions):
        place = path.child("servedVersions").index(index)
        if unfit := _version_errors(version):
            errors.append(invalid(place, version, ",".join(unfit)))
        if version not in server.decodable_versions:
            known = show(server.decodable_versions)
            words = f"individual served version : {version} must be included in decodableVersions : {known}"
            errors.append(invalid(place, version, words))
    return errors


def _check_common(status: v1alpha1.StorageVersionStatus) -> ErrorList:
    path, given = _STATUS.child("commonEncodingVersion"), status.common_encoding_version
    versions = {server.encoding_version for server in status.storage_versions}
    common = versions.pop() if len(versions) == 1 else None
    if given == common:
        return []
    if common is None:
        words = (
            "should be nil if servers do not agree on the same encoding version, or if there is no server reporting "
            "the supported versions yet"
        )
    elif given is None:
        words = f"the common encoding version is {common}"
    else:
        words = f"the actual common encoding version is {common}"
    return [invalid(path, given, words)]


def _check_conditions(conditions: Sequence[v1alpha1.StorageVersionCondition]) -> ErrorList:
    errors: ErrorList = []
    seen: dict[str, int] = {}
    for index, condition in enumerate(conditions):
        path = _STATUS.index(index)
        if condition.type in seen:
            words = f"the type of the condition is not unique, it also appears in conditions[{seen[condition.type]}]"
            errors.append(invalid(path.child("type"), condition.type, words))
        seen[condition.type] = index
        errors += validate_qualified_name(condition.type, path.child("type"))
        errors += validate_qualified_name(condition.status, path.child("status"))
        for name, value in (("reason", condition.reason), ("message", condition.message)):
            if not value:
                errors.append(required(path.child(name), ""))
    return errors


def _check_status(new: v1alpha1.StorageVersion) -> ErrorList:
    errors: ErrorList = []
    known: set[str] = set()
    for index, server in enumerate(new.status.storage_versions):
        path = _STATUS.child("storageVersions").index(index)
        if server.api_server_id in known:
            errors.append(duplicate(path.child("apiServerID"), server.api_server_id))
        known.add(server.api_server_id)
        errors += _check_server(server, path)
    return errors + _check_common(new.status) + _check_conditions(new.status.conditions)


def _check(new: v1alpha1.StorageVersion) -> ErrorList:
    return validate_meta(new.metadata, namespaced=False, name_rule=_name_rule) + _check_status(new)


def _create(new: v1alpha1.StorageVersion) -> None:
    new.status = v1alpha1.StorageVersionStatus()


def _update(new: v1alpha1.StorageVersion, old: v1alpha1.StorageVersion) -> None:
    new.status = old.status


def _update_status(new: v1alpha1.StorageVersion, old: v1alpha1.StorageVersion) -> None:
    new.spec = old.spec
    keep_metadata(new, old)


STRATEGIES: dict[str, Strategy[Any]] = {
    "storageversions": Strategy(
        prepare_for_create=_create,
        validate=_check,
        prepare_for_update=_update,
        name_errors=lambda name: _name_rule(name),
        allow_unconditional_update=False,
        subresources={
            "status": Strategy(
                prepare_for_update=_update_status,
                validate_update=lambda new, _old: _check_status(new),
                allow_unconditional_update=False,
            )
        },
    )
}
