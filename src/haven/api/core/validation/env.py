"""What is wrong with the environment of a container.

Source: https://kubernetes.io/docs/tasks/inject-data-application/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.core import v1
from haven.api.core.validation.fieldrefs import validate_field_ref, validate_resource_field_ref
from haven.api.core.validation.metadata import validate_dns1123_label
from haven.api.core.validation.paths import validate_no_backsteps
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.validation.names import (
    config_map_key_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
    relaxed_env_var_name_errors,
)

__all__ = ["validate_env", "validate_env_from"]

_ENV_FIELDS = frozenset(
    (
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    )
)  # fmt: skip
_ONE_OF = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
_ONE_ONLY = "may not have more than one field specified at a time"


def validate_env(variables: Sequence[v1.EnvVar], path: Path) -> ErrorList:
    """Check single variables."""
    errors: ErrorList = []
    for index, variable in enumerate(variables):
        if not variable.name:
            errors.append(required(path.index(index).child("name"), ""))
        else:
            for text in relaxed_env_var_name_errors(variable.name):
                errors.append(invalid(path.index(index).child("name"), variable.name, text))
        if variable.value_from is not None:
            errors += _value_from(variable, variable.value_from, path.index(index).child("valueFrom"))
    return errors


def _value_from(variable: v1.EnvVar, source: v1.EnvVarSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    sources = 0
    if source.field_ref is not None:
        sources += 1
        errors += validate_field_ref(source.field_ref, _ENV_FIELDS, path.child("fieldRef"))
    if source.resource_field_ref is not None:
        sources += 1
        errors += validate_resource_field_ref(
            source.resource_field_ref, path.child("resourceFieldRef"), needs_container=False
        )
    if source.config_map_key_ref is not None:
        sources += 1
        errors += _key(source.config_map_key_ref, path.child("configMapKeyRef"))
    if source.secret_key_ref is not None:
        sources += 1
        errors += _key(source.secret_key_ref, path.child("secretKeyRef"))
    if source.file_key_ref is not None:
        sources += 1
        errors += _file_key(source.file_key_ref, path.child("fileKeyRef"))
    if sources == 0:
        errors.append(invalid(path, "", _ONE_OF))
    elif variable.value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif sources > 1:
        errors.append(invalid(path, "", _ONE_ONLY))
    return errors


def _key(reference: v1.ConfigMapKeySelector | v1.SecretKeySelector, path: Path) -> ErrorList:
    errors = [invalid(path.child("name"), reference.name, text) for text in dns1123_subdomain_errors(reference.name)]
    if not reference.key:
        errors.append(required(path.child("key"), ""))
    else:
        errors += [invalid(path.child("key"), reference.key, text) for text in config_map_key_errors(reference.key)]
    return errors


def _file_key(reference: v1.FileKeySelector, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not reference.key:
        errors.append(required(path.child("key"), ""))
    else:
        for text in relaxed_env_var_name_errors(reference.key):
            errors.append(invalid(path.child("key"), reference.key, text))
    if not reference.volume_name:
        errors.append(required(path.child("volumeName"), ""))
    else:
        errors += validate_dns1123_label(reference.volume_name, path.child("volumeName"))
    if not reference.path:
        errors.append(required(path.child("path"), ""))
    else:
        errors += validate_no_backsteps(reference.path, path.child("path"))
    return errors


def validate_env_from(sources: Sequence[v1.EnvFromSource], path: Path) -> ErrorList:
    """Check whole objects whose keys become variables."""
    errors: ErrorList = []
    for index, source in enumerate(sources):
        place = path.index(index)
        if source.prefix:
            for text in relaxed_env_var_name_errors(source.prefix):
                errors.append(invalid(place.child("prefix"), source.prefix, text))
        given = [("configMapRef", source.config_map_ref), ("secretRef", source.secret_ref)]
        found = [(name, reference) for name, reference in given if reference is not None]
        for name, reference in found:
            where = place.child(name).child("name")
            if not reference.name:
                errors.append(required(where, ""))
            else:
                errors += [invalid(where, reference.name, t) for t in dns_subdomain_name(reference.name, True)]
        if not found:
            errors.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(found) > 1:
            errors.append(invalid(path, "", _ONE_ONLY))
    return errors
