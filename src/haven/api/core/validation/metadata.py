"""Metadata, as the kinds of Kubernetes itself check it: a finalizer without a domain must be a known one.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation import objectmeta
from haven.apimachinery.validation.names import (
    dns1123_label_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
    qualified_name_errors,
)
from haven.apimachinery.validation.objectmeta import METADATA, NOT_NEGATIVE, NameRule

__all__ = [
    "NOT_POSITIVE",
    "validate_dns1123_label",
    "validate_dns1123_subdomain",
    "validate_finalizer",
    "validate_meta",
    "validate_meta_update",
    "validate_non_negative_quantity",
    "validate_positive",
    "validate_positive_quantity",
    "validate_qualified_name",
]

NOT_POSITIVE = "must be greater than zero"
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def validate_meta(
    metadata: meta.ObjectMeta,
    *,
    namespaced: bool,
    name_rule: NameRule = dns_subdomain_name,
    path: Path = METADATA,
) -> ErrorList:
    """Check the metadata of an object that is created."""
    errors = objectmeta.validate_object_meta(metadata, namespaced=namespaced, name_rule=name_rule, path=path)
    return errors + _kube_finalizers(metadata, path) if metadata.finalizers else errors


def validate_meta_update(new: meta.ObjectMeta, old: meta.ObjectMeta, path: Path = METADATA) -> ErrorList:
    """Check the metadata of an object that is changed."""
    errors = objectmeta.validate_object_meta_update(new, old, path)
    return errors + _kube_finalizers(new, path) if new.finalizers else errors


def _kube_finalizers(metadata: meta.ObjectMeta, path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, name in enumerate(metadata.finalizers):
        errors += _kube_finalizer(name, path.child("finalizers").index(index))
    return errors


def _kube_finalizer(name: str, path: Path) -> ErrorList:
    if "/" in name or name in _STANDARD_FINALIZERS:
        return []
    return [invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")]


def validate_finalizer(name: str, path: Path) -> ErrorList:
    """Check one finalizer's name."""
    return objectmeta.validate_finalizer_name(name, path) + _kube_finalizer(name, path)


def validate_dns1123_label(value: str, path: Path) -> ErrorList:
    """Check a DNS label."""
    return [invalid(path, value, text) for text in dns1123_label_errors(value)]


def validate_dns1123_subdomain(value: str, path: Path) -> ErrorList:
    """Check a DNS subdomain."""
    return [invalid(path, value, text) for text in dns1123_subdomain_errors(value)]


def validate_qualified_name(value: str, path: Path) -> ErrorList:
    """Check a name with an optional domain."""
    return [invalid(path, value, text) for text in qualified_name_errors(value)]


def validate_positive(value: int, path: Path) -> ErrorList:
    """Complain about zero and negative numbers."""
    return [invalid(path, value, NOT_POSITIVE)] if value <= 0 else []


def validate_non_negative_quantity(value: Quantity, path: Path) -> ErrorList:
    """Complain about a negative amount."""
    return [invalid(path, str(value), NOT_NEGATIVE)] if value.nano < 0 else []


def validate_positive_quantity(value: Quantity, path: Path) -> ErrorList:
    """Complain about an amount of zero or less."""
    return [invalid(path, str(value), NOT_POSITIVE)] if value.nano <= 0 else []
