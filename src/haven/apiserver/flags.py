"""The command line flags of an API server, under upstream's names, worked out from the settings that they set.

A flag is a field of SecuritySettings, or one of a few fields of Settings. Values are text, as a command line or a
settings file has them. Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from haven.apiserver.settings import SecuritySettings, Settings

__all__ = ["FLAGS", "Flag", "FlagError", "values_of", "with_flags"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


class FlagError(ValueError):
    """A flag is unknown or its value makes no sense."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag; `kind` says how its value reads: text, number, switch, list or duration."""

    name: str
    kind: str
    help: str
    owner: type
    field: str


_OF_SETTINGS = {
    "max-requests-inflight": ("requests_in_flight_max", "number"),
    "max-mutating-requests-inflight": ("mutating_requests_in_flight_max", "number"),
    "enable-priority-and-fairness": ("priority_and_fairness", "switch"),
    "min-request-timeout": ("watch_timeout_seconds_min", "number"),
    "runtime-config": ("runtime_config", "list"),
    "feature-gates": ("feature_gates", "list"),
    "enable-admission-plugins": ("enable_admission_plugins", "list"),
    "disable-admission-plugins": ("disable_admission_plugins", "list"),
    "admission-control-config-file": ("admission_control_config_file", "text"),
    "default-not-ready-toleration-seconds": ("default_not_ready_toleration_seconds", "number"),
    "default-unreachable-toleration-seconds": ("default_unreachable_toleration_seconds", "number"),
    "profiling": ("profiling", "switch"),
    "show-hidden-metrics-for-version": ("show_hidden_metrics_for_version", "text"),
    "disabled-metrics": ("disabled_metrics", "list"),
    "allow-metric-labels": ("allow_metric_labels", "list"),
}


def _kind(hint: Any, name: str) -> str:
    if name.endswith("_seconds"):
        return "duration"
    if hint in (bool, bool | None):
        return "switch"
    if hint is int:
        return "number"
    if hint is float:
        return "number"
    return "text" if hint is str else "list"


def _flags() -> dict[str, Flag]:
    hints = get_type_hints(SecuritySettings)
    found = {}
    for item in fields(SecuritySettings):
        name = item.name.removesuffix("_seconds").replace("_", "-")
        kind = _kind(hints[item.name], item.name)
        found[name] = Flag(name, kind, item.metadata["help"], SecuritySettings, item.name)
    for name, (field, kind) in _OF_SETTINGS.items():
        found[name] = Flag(name, kind, "", Settings, field)
    return found


FLAGS = _flags()


def with_flags(settings: Settings, values: Mapping[str, str | Sequence[str]]) -> Settings:
    """Return settings with flags (by name, without the dashes in front) applied; raise FlagError."""
    security: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        flag = FLAGS.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: --{name}")
        try:
            parsed = _parse(flag.kind, value)
        except ValueError as error:
            raise FlagError(f'invalid argument "{value}" for "--{name}" flag: {error}') from None
        (security if flag.owner is SecuritySettings else own)[flag.field] = parsed
    return replace(settings, security=replace(settings.security, **security), **own)


def values_of(settings: Settings) -> dict[str, Any]:
    """Return the value of every flag, as settings have it."""
    owners: dict[type, Any] = {Settings: settings, SecuritySettings: settings.security}
    return {name: getattr(owners[flag.owner], flag.field) for name, flag in FLAGS.items()}


def _parse(kind: str, value: str | Sequence[str]) -> Any:
    if kind == "list":
        texts = [value] if isinstance(value, str) else value
        return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
    text = value if isinstance(value, str) else value[-1]
    if kind == "number":
        number = float(text)
        return int(number) if number.is_integer() else number
    if kind == "switch":
        if text.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise ValueError("want true or false")
        return text.lower() in ("true", "1", "t")
    if kind == "duration":
        return parse_duration(text)
    return text


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 1m30s; raise ValueError."""
    if text == "0":
        return 0.0
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in found)
