"""What is wrong with amounts of compute resources, with their names, and with requests and limits.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from haven.api.core import v1
from haven.api.core.resources import (
    is_extended,
    is_huge_page,
    is_integer_resource,
    is_native,
    is_overcommit_allowed,
    is_standard_container_resource,
    is_standard_resource,
    is_supported_pod_level_resource,
)
from haven.api.core.validation.metadata import validate_dns1123_label
from haven.apimachinery.fielderrors import (
    ErrorList,
    ErrorType,
    FieldError,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.validation.names import qualified_name_errors
from haven.apimachinery.validation.objectmeta import NOT_NEGATIVE

__all__ = [
    "NOT_INTEGER",
    "is_divisible_huge_page",
    "validate_container_resource_name",
    "validate_resource_name",
    "validate_resource_quantity",
    "validate_resource_requirements",
]

NOT_INTEGER = "must be an integer"


def validate_resource_quantity(name: str, value: Quantity, path: Path) -> ErrorList:
    """Check an amount: not negative, and whole where the resource is counted."""
    errors: ErrorList = []
    if value.nano < 0:
        errors.append(invalid(path, str(value), NOT_NEGATIVE))
    if not value.is_whole and is_integer_resource(name):
        errors.append(invalid(path, str(value), NOT_INTEGER))
    return errors


def validate_resource_name(name: str, path: Path) -> ErrorList:
    """Check the name of any resource."""
    errors = [invalid(path, name, text) for text in qualified_name_errors(name)]
    if not errors and "/" not in name and not is_standard_resource(name):
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))
    return errors


def validate_container_resource_name(name: str, path: Path) -> ErrorList:
    """Check the name of what a container asks for."""
    if name in ("cpu", "memory"):
        return []
    errors = validate_resource_name(name, path)
    if "/" not in name:
        if not is_standard_container_resource(name):
            errors.append(invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(invalid(path, name, "doesn't follow extended resource name standard"))
    return errors


def is_divisible_huge_page(name: str, value: Quantity) -> bool:
    """Tell whether an amount of huge pages is a whole number of them."""
    try:
        size = Quantity.parse(name.removeprefix("hugepages-"))
    except InvalidQuantity:
        return False
    return size.nano > 0 and size.nano % 10**9 == 0 and value.value % size.value == 0


def _pod_resource_name(name: str, path: Path) -> ErrorList:
    errors = validate_resource_name(name, path)
    if not errors and not is_supported_pod_level_resource(name):
        errors.append(not_supported(path, name, ("cpu", "hugepages-", "memory")))
    return errors


def _huge_page(name: str, value: Quantity, path: Path, allow_indivisible: bool) -> ErrorList:
    if allow_indivisible or is_divisible_huge_page(name, value):
        return []
    return [invalid(path, str(value), f"{value} is not positive integer multiple of {name}")]


def validate_resource_requirements(
    resources: v1.ResourceRequirements,
    claim_names: Collection[str],
    path: Path,
    *,
    of_pod: bool = False,
    allow_indivisible: bool = False,
) -> ErrorList:
    """Check the requests and limits of a container, or of a whole Pod."""
    limits, requests = resources.limits, resources.requests
    if not limits and not requests and not resources.claims:
        return []
    check_name = _pod_resource_name if of_pod else validate_container_resource_name
    errors: ErrorList = []
    huge = False
    for name in sorted(limits):
        value = limits[name]
        place = path.child("limits").key(name)
        errors += check_name(name, place)
        errors += validate_resource_quantity(name, value, place)
        if is_huge_page(name):
            huge = True
            errors += _huge_page(name, value, place, allow_indivisible)
    for name in sorted(requests):
        value = requests[name]
        place = path.child("requests").key(name)
        errors += check_name(name, place)
        errors += validate_resource_quantity(name, value, place)
        limit = limits.get(name)
        if limit is not None:
            if value != limit and not is_overcommit_allowed(name):
                errors.append(invalid(path.child("requests"), str(value), f"must be equal to {name} limit of {limit}"))
            elif value > limit:
                words = f"must be less than or equal to {name} limit of {limit}"
                errors.append(invalid(path.child("requests"), str(value), words))
        elif not is_overcommit_allowed(name):
            errors.append(required(path.child("limits"), "Limit must be set for non overcommitable resources"))
        if is_huge_page(name):
            huge = True
            errors += _huge_page(name, value, place, allow_indivisible)
    if huge and not any(name in amounts for amounts in (limits, requests) for name in ("cpu", "memory")):
        errors.append(forbidden(path, "HugePages require cpu or memory"))
    if resources.claims:
        errors += _claims(resources.claims, claim_names, path.child("claims"))
    return errors


def _claims(claims: Sequence[v1.ResourceClaim], claim_names: Collection[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        name, place = claim.name, path.index(index)
        if not name:
            errors.append(required(place, ""))
            continue
        if name in seen:
            errors.append(duplicate(place, name))
        else:
            key = name
            if claim.request:
                errors += validate_dns1123_label(claim.request, place.child("request"))
                key += f"/{claim.request}"
            if key in seen:
                errors.append(duplicate(place, key))
            elif not claim.request:
                errors += [duplicate(place, name) for other in seen if other.startswith(f"{name}/")]
            seen.add(key)
        if name not in claim_names:
            words = "must be one of the names in pod.spec.resourceClaims"
            words += f": {', '.join(sorted(claim_names))}" if claim_names else " which is empty"
            errors.append(FieldError(ErrorType.NOT_FOUND, str(place), name, words))
    return errors
