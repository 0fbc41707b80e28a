"""Which versions are served: --runtime-config, as in api/all=true, api/beta=true, batch/v1=false, group/version.

Source: https://kubernetes.io/docs/tasks/administer-cluster/enable-disable-api/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haven.api.scheme import Resource
from haven.apiserver.discovery import is_stable
from haven.apiserver.featuregates import RESOURCE_GATES, TRUTHS

__all__ = ["RuntimeConfigError", "served_versions"]

_STAGES = frozenset({"api/all", "api/ga", "api/beta", "api/alpha"})
_LEGACY = {"api/legacy": "v1", "api/v1": "v1"}


class RuntimeConfigError(ValueError):
    """A setting names no version that there is."""


def served_versions(
    table: Iterable[Resource[Any]], values: Iterable[str], states: Mapping[str, bool] | None = None
) -> list[Resource[Any]]:
    """Return the resources that are served: stable ones unless set otherwise; what is more specific wins.

    `states` says which feature gates are on: some resources are there only with theirs. None asks no gate.
    """
    resources = list(table)
    chosen: dict[str, bool] = {}
    for text in values:
        name, _, value = text.partition("=")
        if name in _STAGES and value not in ("true", "false"):
            raise RuntimeConfigError(f"invalid value {name}={value}")
        if value and value not in TRUTHS:
            raise RuntimeConfigError(
                f'invalid value of {name}: {value}, err: strconv.ParseBool: parsing "{value}": invalid syntax'
            )
        chosen[_LEGACY.get(name, name)] = TRUTHS.get(value, True)
    _check(resources, chosen)
    return [
        resource
        for resource in resources
        if _is_served(resource, chosen) and (states or {}).get(RESOURCE_GATES.get(resource.group_resource, ""), True)
    ]


def _check(resources: Sequence[Resource[Any]], chosen: dict[str, bool]) -> None:
    if chosen == {"api/all": False}:
        raise RuntimeConfigError("invalid runtime-config with only api/all=false")
    versions = {resource.api_version for resource in resources}
    groups = {resource.group for resource in resources if resource.group}
    named = [name for name in chosen if name not in _STAGES and name.split("/")[0] != "v1"]
    for name in named:
        if name.count("/") not in (1, 2):
            raise RuntimeConfigError(f"runtime-config invalid key {name}")
    unknown = {"/".join(name.split("/")[:2]) for name in named if name.split("/")[0] not in groups}
    if unknown:
        raise RuntimeConfigError(f"unknown api groups {','.join(sorted(unknown))}")
    for name in named:
        version = "/".join(name.split("/")[:2])
        if version not in versions:
            raise RuntimeConfigError(f"group version {version} that has not been registered")
        if name != name.lower():
            plural = name.split("/")[2]
            raise RuntimeConfigError(
                f'invalid key {name}: group/version/resource and resource is always lowercase plural, not "{plural}"'
            )


def _is_served(resource: Resource[Any], chosen: dict[str, bool]) -> bool:
    stable = is_stable(resource.version)
    stage = "ga" if stable else "alpha" if "alpha" in resource.version else "beta"
    for name in (f"{resource.api_version}/{resource.plural}", resource.api_version, f"api/{stage}", "api/all"):
        if name in chosen:
            return chosen[name]
    return stable
