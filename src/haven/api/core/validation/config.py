"""What is wrong with a ConfigMap or a Secret.

Source: https://kubernetes.io/docs/concepts/configuration/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

import json

from haven.api.core import v1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, required, too_long
from haven.apimachinery.schema.gojson import syntax_error
from haven.apimachinery.validation.names import byte_length, config_map_key_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["validate_config_map", "validate_config_map_update", "validate_secret", "validate_secret_update"]

DATA_BYTES_MAX = 1024 * 1024
_DATA = Path("data")
_FROZEN = "field is immutable when `immutable` is set"


def validate_config_map(config: v1.ConfigMap) -> ErrorList:
    """Check a ConfigMap."""
    errors = validate_meta(config.metadata, namespaced=True)
    size = 0
    for key in sorted(config.data):
        errors += [invalid(_DATA.key(key), key, text) for text in config_map_key_errors(key)]
        if key in config.binary_data:
            errors.append(invalid(_DATA.key(key), key, "duplicate of key present in binaryData"))
        size += byte_length(config.data[key])
    for key in sorted(config.binary_data):
        errors += [invalid(Path("binaryData").key(key), key, text) for text in config_map_key_errors(key)]
        size += len(config.binary_data[key])
    if size > DATA_BYTES_MAX:
        errors.append(too_long(Path(""), "", DATA_BYTES_MAX))
    return errors


def validate_config_map_update(new: v1.ConfigMap, old: v1.ConfigMap) -> ErrorList:
    """Check a changed ConfigMap."""
    errors = validate_meta_update(new.metadata, old.metadata)
    if old.immutable:
        if not new.immutable:
            errors.append(forbidden(Path("immutable"), _FROZEN))
        if new.data != old.data:
            errors.append(forbidden(_DATA, _FROZEN))
        if new.binary_data != old.binary_data:
            errors.append(forbidden(Path("binaryData"), _FROZEN))
    return errors + validate_config_map(new)


def validate_secret(secret: v1.Secret) -> ErrorList:
    """Check a Secret, including what its type asks for."""
    errors = validate_meta(secret.metadata, namespaced=True)
    data = secret.data
    size = 0
    for key in sorted(data):
        errors += [invalid(_DATA.key(key), key, text) for text in config_map_key_errors(key)]
        size += len(data[key])
    if size > DATA_BYTES_MAX:
        errors.append(too_long(_DATA, "", DATA_BYTES_MAX))
    match secret.type:
        case "kubernetes.io/service-account-token":
            name = "kubernetes.io/service-account.name"
            if not secret.metadata.annotations.get(name):
                errors.append(required(Path("metadata", "annotations").key(name), ""))
        case "kubernetes.io/dockercfg":
            errors += _docker_config(data, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            errors += _docker_config(data, ".dockerconfigjson")
        case "kubernetes.io/basic-auth":
            if "username" not in data and "password" not in data:
                errors.append(required(_DATA.key("username"), ""))
                errors.append(required(_DATA.key("password"), ""))
        case "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                errors.append(required(_DATA.key("ssh-privatekey"), ""))
        case "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if key not in data:
                    errors.append(required(_DATA.key(key), ""))
    return errors


def validate_secret_update(new: v1.Secret, old: v1.Secret) -> ErrorList:
    """Check a changed Secret; its type stays."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_immutable(new.type, old.type, Path("type"))
    if old.immutable:
        if not new.immutable:
            errors.append(forbidden(Path("immutable"), _FROZEN))
        if new.data != old.data:
            errors.append(forbidden(_DATA, _FROZEN))
    return errors + validate_secret(new)


def _docker_config(data: dict[str, bytes], key: str) -> ErrorList:
    if key not in data:
        return [required(_DATA.key(key), "")]
    complaint = _json_object_complaint(data[key])
    return [invalid(_DATA.key(key), "<secret contents redacted>", complaint)] if complaint else []


_GO_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "bool"}


def _json_object_complaint(data: bytes) -> str:
    """Say in Go's words why the data is no JSON object; "" if it is one."""
    complaint = syntax_error(data)
    if complaint is not None:
        return complaint
    value = json.loads(data)
    if value is None or isinstance(value, dict):
        return ""
    return f"json: cannot unmarshal {_GO_KINDS[type(value)]} into Go value of type map[string]interface {{}}"
