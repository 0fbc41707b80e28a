"""The command line flags of an API server, under upstream's names, worked out from the settings that they set.

A flag is a field of SecuritySettings, or one of a few fields of Settings. Values are text, as a command line or a
settings file has them. Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, get_type_hints

from haven.apiserver.flagchecks import complaint, goaway_complaint
from haven.apiserver.settings import SecuritySettings, Settings

__all__ = ["FLAGS", "OTHERS", "Flag", "FlagError", "OtherFlag", "values_of", "with_flags"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


_WHOLE = re.compile(r"[+-]?\d+")
_PORTS = re.compile(r"(\d+)(?:([-+])(\d+))?")
_PORT_MAX = 65535
_SWITCHES = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


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
    "request-timeout": ("request_timeout_seconds", "duration"),
    "event-ttl": ("event_ttl_seconds", "seconds"),
    "shutdown-delay-duration": ("shutdown_delay_seconds", "duration"),
    "shutdown-watch-termination-grace-period": ("shutdown_watch_grace_seconds", "duration"),
    "cors-allowed-origins": ("cors_allowed_origins", "list"),
    "strict-transport-security-directives": ("strict_transport_security_directives", "list"),
    "service-node-port-range": ("service_node_ports", "ports"),
    "enable-aggregator-routing": ("aggregator_routing", "switch"),
    "advertise-address": ("advertise_address", "text"),
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
        return "fraction"
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


@dataclass(frozen=True, slots=True)
class OtherFlag:
    """A flag of kube-apiserver that sets nothing here. `values` is what it may have, None if it is refused."""

    values: str | None
    because: str


def _others() -> dict[str, OtherFlag]:
    text = resources.files("haven.apiserver").joinpath("otherflags.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: OtherFlag(values if kind == "accepted" else None, why) for name, kind, values, why in rows}


OTHERS = _others()


def with_flags(settings: Settings, values: Mapping[str, str | Sequence[str]]) -> Settings:
    """Return settings with flags (by name, without the dashes in front) applied; raise FlagError."""
    security: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        flag = FLAGS.get(name)
        if flag is None:
            _check_other(name, value)
            continue
        try:
            parsed = _parse(flag.kind, value)
        except ValueError as error:
            raise FlagError(f'invalid argument "{value}" for "--{name}" flag: {error}') from None
        (security if flag.owner is SecuritySettings else own)[flag.field] = parsed
    result = replace(settings, security=replace(settings.security, **security), **own)
    wrong = complaint(result, values_of(result), values)
    if wrong:
        raise FlagError(wrong)
    return result


def _check_other(name: str, value: str | Sequence[str]) -> None:
    """Let a flag pass that has nothing to set here; raise FlagError if its value asks for what there is not."""
    other = OTHERS.get(name)
    if other is None:
        raise FlagError(f"unknown flag: --{name}")
    text = value if isinstance(value, str) else value[-1]
    if name == "goaway-chance":
        wrong = goaway_complaint(text)
        if wrong:
            raise FlagError(wrong)
    if other.values is None:
        raise FlagError(f"--{name} is not for Haven: {other.because}")
    if not re.fullmatch(other.values, text):
        raise FlagError(f'invalid argument "{text}" for "--{name}" flag: {other.because}')


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
        if not _WHOLE.fullmatch(text):
            raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text)
    if kind == "fraction":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from None
    if kind == "switch":
        if text not in _SWITCHES:
            raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
        return _SWITCHES[text]
    if kind == "duration":
        return parse_duration(text)
    if kind == "seconds":
        return int(parse_duration(text))
    if kind == "ports":
        return _parse_ports(text)
    return text


def _parse_ports(text: str) -> range:
    """Return the ports of first-last or first+more; raise ValueError."""
    found = _PORTS.fullmatch(text)
    if found is None:
        raise ValueError(f"unable to parse port range: {text}")
    first = int(found[1])
    last = first if found[3] is None else first + int(found[3]) if found[2] == "+" else int(found[3])
    if not 0 < first <= last <= _PORT_MAX:
        raise ValueError(f"the port range must be between 1 and {_PORT_MAX}, its end behind its beginning: {text}")
    return range(first, last + 1)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 1m30s; raise ValueError."""
    sign = -1.0 if text.startswith("-") else 1.0
    amount = text.lstrip("+-") if text[:1] in ("+", "-") else text
    if amount == "0":
        return 0.0
    found = _DURATION.findall(amount)
    if not found or "".join(number + unit for number, unit in found) != amount:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * sum(float(number) * _UNITS[unit] for number, unit in found)
