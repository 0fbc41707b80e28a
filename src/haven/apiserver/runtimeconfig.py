"""Which versions are served: --runtime-config, as in api/all=true, api/beta=true, batch/v1=false, group/version.

Source: https://kubernetes.io/docs/tasks/administer-cluster/enable-disable-api/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from haven.api.scheme import Resource
from haven.apiserver.discovery import is_stable

__all__ = ["RuntimeConfigError", "served_versions"]

_LEGACY = {"api/legacy": "v1", "api/v1": "v1"}


class RuntimeConfigError(ValueError):
    """A setting names no version that there is."""


def served_versions(table: Iterable[Resource[Any]], values: Iterable[str]) -> list[Resource[Any]]:
    """Return the resources that are served: stable ones unless set otherwise; what is more specific wins."""
    resources = list(table)
    chosen: dict[str, bool] = {}
    for text in values:
        name, _, value = text.partition("=")
        if value.lower() not in ("", "true", "false"):
            raise RuntimeConfigError(f"invalid value {value!r} for {name}: want true or false")
        chosen[_LEGACY.get(name, name)] = value.lower() != "false"
    _check(resources, chosen)
    return [resource for resource in resources if _is_served(resource, chosen)]


def _check(resources: Sequence[Resource[Any]], chosen: dict[str, bool]) -> None:
    known = {"api/all", "api/ga", "api/beta", "api/alpha"}
    for resource in resources:
        known |= {resource.api_version, f"{resource.api_version}/{resource.plural}"}
    unknown = sorted(chosen.keys() - known)
    if unknown:
        raise RuntimeConfigError(f"unknown api groups {','.join(unknown)}")


def _is_served(resource: Resource[Any], chosen: dict[str, bool]) -> bool:
    stable = is_stable(resource.version)
    stage = "ga" if stable else "alpha" if "alpha" in resource.version else "beta"
    for name in (f"{resource.api_version}/{resource.plural}", resource.api_version, f"api/{stage}", "api/all"):
        if name in chosen:
            return chosen[name]
    return stable
