"""What is wrong with a Namespace or a ServiceAccount.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.metadata import validate_finalizer, validate_meta, validate_meta_update
from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.validation.names import dns_label_name

__all__ = [
    "validate_namespace",
    "validate_namespace_finalize_update",
    "validate_namespace_status_update",
    "validate_namespace_update",
    "validate_service_account",
    "validate_service_account_update",
]

_FINALIZERS = Path("spec", "finalizers")


def validate_namespace(namespace: v1.Namespace) -> ErrorList:
    """Check a Namespace."""
    errors = validate_meta(namespace.metadata, namespaced=False, name_rule=dns_label_name)
    for name in namespace.spec.finalizers:
        errors += validate_finalizer(name, _FINALIZERS)
    return errors


def validate_namespace_update(new: v1.Namespace, old: v1.Namespace) -> ErrorList:
    """Check a changed Namespace."""
    return validate_namespace(new) + validate_meta_update(new.metadata, old.metadata)


def validate_namespace_status_update(new: v1.Namespace, old: v1.Namespace) -> ErrorList:
    """Check that the phase tells whether the Namespace is being deleted."""
    errors = validate_meta_update(new.metadata, old.metadata)
    path = Path("status", "Phase")
    if not new.metadata.deletion_timestamp:
        if new.status.phase != "Active":
            errors.append(invalid(path, new.status.phase, "may only be 'Active' if `deletionTimestamp` is empty"))
    elif new.status.phase != "Terminating":
        words = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        errors.append(invalid(path, new.status.phase, words))
    return errors


def validate_namespace_finalize_update(new: v1.Namespace, old: v1.Namespace) -> ErrorList:
    """Check what /finalize changes."""
    errors = validate_meta_update(new.metadata, old.metadata)
    for index, name in enumerate(new.spec.finalizers):
        errors += validate_finalizer(name, _FINALIZERS.index(index))
    return errors


def validate_service_account(account: v1.ServiceAccount) -> ErrorList:
    """Check a ServiceAccount."""
    return validate_meta(account.metadata, namespaced=True)


def validate_service_account_update(new: v1.ServiceAccount, old: v1.ServiceAccount) -> ErrorList:
    """Check a changed ServiceAccount."""
    return validate_meta_update(new.metadata, old.metadata) + validate_service_account(new)
