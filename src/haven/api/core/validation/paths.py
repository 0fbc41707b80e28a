"""What is wrong with a path inside a volume.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.apimachinery.fielderrors import ErrorList, Path, invalid

__all__ = ["validate_local_path", "validate_local_unreserved_path", "validate_no_backsteps"]


def validate_no_backsteps(target: str, path: Path) -> ErrorList:
    """Check that a path never climbs."""
    if ".." in target and ".." in target.split("/"):
        return [invalid(path, target, "must not contain '..'")]
    return []


def validate_local_path(target: str, path: Path) -> ErrorList:
    """Check that a path is relative and never climbs."""
    errors: ErrorList = []
    if target.startswith("/"):
        errors.append(invalid(path, target, "must be a relative path"))
    return errors + validate_no_backsteps(target, path)


def validate_local_unreserved_path(target: str, path: Path) -> ErrorList:
    """Check a relative path whose first name does not begin with two dots: the kubelet uses such names itself."""
    errors = validate_local_path(target, path)
    if target.startswith("..") and not target.startswith("../"):
        errors.append(invalid(path, target, "must not start with '..'"))
    return errors
