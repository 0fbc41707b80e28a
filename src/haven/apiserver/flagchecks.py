"""Which values of flags make sense, alone and together, in upstream's words."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from haven.apiserver.settings import Settings

__all__ = ["complaint"]

_NOT_NEGATIVE = (
    "max-requests-inflight", "max-mutating-requests-inflight", "request-timeout", "min-request-timeout",
    "shutdown-delay-duration",
)  # fmt: skip
_TOKEN_SECONDS_MIN, _TOKEN_SECONDS_MAX = 3600, 2**32
_GOAWAY_MAX = 0.02
_DIRECTIVE = re.compile(r"max-age=\d+|includeSubDomains|preload")
_METRIC_LABEL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*,[a-zA-Z_][a-zA-Z0-9_]*=.*")
_RFC = "https://tools.ietf.org/html/rfc6797#section-6.1"


def complaint(settings: Settings, values: Mapping[str, Any], given: Collection[str]) -> str:
    """Return what is wrong with settings, "" if nothing; `values` has every flag's, `given` those that were set."""
    wrong = [f"--{name} can not be negative value" for name in _NOT_NEGATIVE if values[name] < 0]
    if settings.shutdown_watch_grace_seconds < 0:
        wrong.append("shutdown-watch-termination-grace-period, if provided, can not be a negative value")
    if any(not _DIRECTIVE.fullmatch(one) for one in settings.strict_transport_security_directives):
        text = "allowed values: max-age=expireTime, includeSubDomains, preload"
        wrong.append(f"--strict-transport-security-directives invalid, {text}. see {_RFC} for more information")
    for pattern in settings.cors_allowed_origins:
        try:
            re.compile(pattern)
        except re.error as error:
            wrong.append(f"--cors-allowed-origins has an invalid regular expression: {error}")
    wrong += [
        f"metrics.allowListMapping: Invalid value: {text!r}: must have keys with format `metricName,labelName`"
        for text in settings.allow_metric_labels
        if not _METRIC_LABEL.fullmatch(text)
    ]
    wrong += _together(settings, given)
    return wrong[0] if len(wrong) < 2 and wrong else f"[{', '.join(wrong)}]" if wrong else ""


def _together(settings: Settings, given: Collection[str]) -> list[str]:
    security, wrong = settings.security, []
    if security.authorization_config and any(
        name == "authorization-mode" or name.startswith("authorization-webhook-") for name in given
    ):
        text = "can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
        wrong.append(f"--authorization-config {text}")
    if security.authentication_config and any(name.startswith("oidc-") for name in given):
        wrong.append("authentication-config file and oidc-* flags are mutually exclusive")
    if security.encryption_provider_config_automatic_reload and not security.encryption_provider_config:
        wrong.append("--encryption-provider-config-automatic-reload must be set with --encryption-provider-config")
    longest = security.service_account_max_token_expiration_seconds
    if longest and not _TOKEN_SECONDS_MIN <= longest <= _TOKEN_SECONDS_MAX:
        wrong.append("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds")
    both = set(settings.disable_admission_plugins) & set(settings.enable_admission_plugins)
    if both and "enable-admission-plugins" in given:
        names = ", ".join(f'"{name}"' for name in sorted(both))
        wrong.append(f"{names} in enable-admission-plugins and disable-admission-plugins overlapped")
    return wrong


def goaway_complaint(text: str) -> str:
    """Return what is wrong with --goaway-chance."""
    try:
        chance = float(text)
    except ValueError:
        return f'strconv.ParseFloat: parsing "{text}": invalid syntax'
    return "" if 0 <= chance <= _GOAWAY_MAX else "--goaway-chance can not be less than 0 or greater than 0.02"
