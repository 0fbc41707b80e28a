"""What is wrong with the files that a volume gets from an object: keys, modes, facts about the Pod.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.fieldrefs import validate_field_ref, validate_resource_field_ref
from haven.api.core.validation.paths import validate_local_unreserved_path
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required

__all__ = ["FILE_MODE_WORDS", "validate_downward_file", "validate_file_mode", "validate_key_to_path"]

FILE_MODE_WORDS = "must be a number between 0 and 0777 (octal), both inclusive"
_FILE_FIELDS = frozenset(
    ("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
)


def validate_file_mode(mode: int | None, path: Path) -> ErrorList:
    """Check the permissions of a file."""
    return [invalid(path, mode, FILE_MODE_WORDS)] if mode is not None and not 0 <= mode <= 0o777 else []


def validate_key_to_path(item: v1.KeyToPath, path: Path) -> ErrorList:
    """Check which key goes into which file."""
    errors: ErrorList = []
    if not item.key:
        errors.append(required(path.child("key"), ""))
    if not item.path:
        errors.append(required(path.child("path"), ""))
    errors += validate_local_unreserved_path(item.path, path.child("path"))
    return errors + validate_file_mode(item.mode, path.child("mode"))


def validate_downward_file(file: v1.DownwardAPIVolumeFile, path: Path) -> ErrorList:
    """Check a file that tells something about its Pod."""
    errors: ErrorList = [] if file.path else [required(path.child("path"), "")]
    errors += validate_local_unreserved_path(file.path, path.child("path"))
    if file.field_ref is not None:
        errors += validate_field_ref(file.field_ref, _FILE_FIELDS, path.child("fieldRef"))
        if file.resource_field_ref is not None:
            words = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid(path, "resource", words))
    elif file.resource_field_ref is not None:
        errors += validate_resource_field_ref(
            file.resource_field_ref, path.child("resourceFieldRef"), needs_container=True
        )
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    return errors + validate_file_mode(file.mode, path.child("mode"))
