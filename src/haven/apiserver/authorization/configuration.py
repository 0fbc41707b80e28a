"""AuthorizationConfiguration: who decides about requests, in which order.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import dns1123_subdomain_errors
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.expressions import BadExpression, Engine, Expression
from haven.apiserver.flags import parse_duration

__all__ = ["AuthorizerConfig", "WebhookConfig", "parse_authorization"]

VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
TYPES = ("Webhook", "Node", "RBAC", "ABAC", "AlwaysAllow", "AlwaysDeny")
_REPEATABLE = frozenset({"Webhook"})
CONDITIONS_MAX = 64
TIMEOUT_SECONDS_MAX = 30.0
AUTHORIZED_SECONDS, UNAUTHORIZED_SECONDS = 300.0, 30.0
_UNSET = "0"
"""A duration that a file does not have: as good as none."""


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    pass


class _Connection(_Part, frozen=True):
    type: str = ""
    kube_config_file: str | None = None


class _MatchCondition(_Part, frozen=True):
    expression: str = ""


class _Webhook(_Part, frozen=True):
    authorized_ttl: str = msgspec.field(default=_UNSET, name="authorizedTTL")
    cache_authorized_requests: bool = True
    unauthorized_ttl: str = msgspec.field(default=_UNSET, name="unauthorizedTTL")
    cache_unauthorized_requests: bool = True
    timeout: str = _UNSET
    subject_access_review_version: str = ""
    match_condition_subject_access_review_version: str = ""
    failure_policy: str = ""
    connection_info: _Connection = _Connection()
    match_conditions: tuple[_MatchCondition, ...] = ()


class _Authorizer(_Part, frozen=True):
    type: str = ""
    name: str = ""
    webhook: _Webhook | None = None


class _File(Document, frozen=True):
    authorizers: tuple[_Authorizer, ...] = ()


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """How a webhook is asked. `kubeconfig` "" means the cluster's own service account."""

    kubeconfig: str
    version: str
    authorized_ttl_seconds: float
    unauthorized_ttl_seconds: float
    timeout_seconds: float
    failure_denies: bool
    match_conditions: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizerConfig:
    """One authorizer of the chain."""

    type: str
    name: str
    webhook: WebhookConfig | None = None


def parse_authorization(data: bytes, engine: Engine) -> list[AuthorizerConfig]:
    """Return the chain of a file; raise ConfigError with everything that is wrong."""
    document = read_document(data, _File, "AuthorizationConfiguration", VERSIONS)
    wrong: list[str] = []
    if not document.authorizers:
        wrong.append("authorizers: Required value: at least one authorization mode must be defined")
    found: list[AuthorizerConfig] = []
    for index, item in enumerate(document.authorizers):
        path = f"authorizers[{index}]"
        if not item.type:
            wrong.append(f"{path}.type: Required value")
            continue
        if item.type not in TYPES:
            known = ", ".join(map(quote, sorted(TYPES)))
            wrong.append(f"{path}.type: Unsupported value: {quote(item.type)}: supported values: {known}")
            continue
        if item.type not in _REPEATABLE and item.type in {one.type for one in found}:
            wrong.append(f"{path}.type: Duplicate value: {quote(item.type)}")
            continue
        wrong += _name_errors(item, path, [one.name for one in found])
        webhook = None
        if item.type == "Webhook":
            if item.webhook is None:
                wrong.append(f"{path}.webhook: Required value: required when type=Webhook")
            else:
                webhook = _webhook(item.webhook, path, engine, wrong)
        elif item.webhook is not None:
            wrong.append(f'{path}.webhook: Invalid value: "non-null": may only be specified when type=Webhook')
        found.append(AuthorizerConfig(item.type, item.name, webhook))
    if not wrong:
        wrong = [
            f"expected name {one.type.lower()} for authorizer {one.type} instead of {one.name}"
            for one in found
            if one.type != "Webhook" and one.name != one.type.lower()
        ]
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return found


def _name_errors(item: _Authorizer, path: str, taken: Sequence[str]) -> list[str]:
    if not item.name:
        return [f"{path}.name: Required value"]
    if item.name in taken:
        return [f"{path}.name: Duplicate value: {quote(item.name)}"]
    if texts := dns1123_subdomain_errors(item.name):
        return [f"{path}.name: Invalid value: {quote(item.name)}: authorizer name is invalid: {', '.join(texts)}"]
    return []


def _webhook(item: _Webhook, path: str, engine: Engine, wrong: list[str]) -> WebhookConfig:
    timeout = _duration(item.timeout)
    if not timeout:
        wrong.append(f"{path}.timeout: Required value")
    elif not 0 < timeout <= TIMEOUT_SECONDS_MAX:
        wrong.append(f"{path}.timeout: Invalid value: {quote(item.timeout)}: must be > 0s and <= 30s")
    authorized = _duration(item.authorized_ttl) or AUTHORIZED_SECONDS
    unauthorized = _duration(item.unauthorized_ttl) or UNAUTHORIZED_SECONDS
    for field, text, seconds in (
        ("authorizedTTL", item.authorized_ttl, authorized),
        ("unauthorizedTTL", item.unauthorized_ttl, unauthorized),
    ):
        if seconds < 0:
            wrong.append(f"{path}.{field}: Invalid value: {quote(text)}: must be > 0s")
    for field, value, allowed in (
        ("subjectAccessReviewVersion", item.subject_access_review_version, ("v1", "v1beta1")),
        ("failurePolicy", item.failure_policy, ("NoOpinion", "Deny")),
    ):
        wrong += _choice_errors(value, allowed, f"{path}.{field}")
    version = item.match_condition_subject_access_review_version
    if item.match_conditions or version:
        wrong += _choice_errors(version, ("v1",), f"{path}.matchConditionSubjectAccessReviewVersion")
    kubeconfig = item.connection_info.kube_config_file
    if not item.connection_info.type:
        wrong.append(f"{path}.connectionInfo.type: Required value")
    elif item.connection_info.type not in ("InClusterConfig", "KubeConfigFile"):
        file = "null" if kubeconfig is None else quote(kubeconfig)
        shown = f'{{"Type":{quote(item.connection_info.type)},"KubeConfigFile":{file}}}'
        text = 'supported values: "InClusterConfig", "KubeConfigFile"'
        wrong.append(f"{path}.connectionInfo.type: Unsupported value: {shown}: {text}")
    elif item.connection_info.type == "KubeConfigFile":
        if not kubeconfig:
            wrong.append(f"{path}.connectionInfo.kubeConfigFile: Required value")
        elif not kubeconfig.startswith("/"):
            text = "must be an absolute path"
            wrong.append(f"{path}.connectionInfo.kubeConfigFile: Invalid value: {quote(kubeconfig)}: {text}")
        elif not Path(kubeconfig).exists():
            text = f"error loading file: stat {kubeconfig}: no such file or directory"
            wrong.append(f"{path}.connectionInfo.kubeConfigFile: Invalid value: {quote(kubeconfig)}: {text}")
    elif kubeconfig is not None:
        text = "can only be set when type=KubeConfigFile"
        wrong.append(f"{path}.connectionInfo.kubeConfigFile: Invalid value: {quote(kubeconfig)}: {text}")
    return WebhookConfig(
        kubeconfig=kubeconfig or "",
        version=item.subject_access_review_version,
        authorized_ttl_seconds=authorized if item.cache_authorized_requests else 0.0,
        unauthorized_ttl_seconds=unauthorized if item.cache_unauthorized_requests else 0.0,
        timeout_seconds=timeout,
        failure_denies=item.failure_policy == "Deny",
        match_conditions=_conditions(item.match_conditions, f"{path}.matchConditions", engine, wrong),
    )


def _conditions(
    items: Sequence[_MatchCondition], path: str, engine: Engine, wrong: list[str]
) -> tuple[Expression, ...]:
    found: list[Expression] = []
    seen: set[str] = set()
    if len(items) > CONDITIONS_MAX:
        wrong.append(f"{path}: Too many: {len(items)}: must have at most {CONDITIONS_MAX} items")
    for index, item in enumerate(items):
        at = f"{path}[{index}].expression"
        if not item.expression.strip():
            wrong.append(f"{at}: Required value")
            continue
        if item.expression in seen:
            wrong.append(f"{at}: Duplicate value: {quote(item.expression)}")
        seen.add(item.expression)
        try:
            expression = engine.compile(item.expression, "request")
        except BadExpression as error:
            wrong.append(f"{at}: Invalid value: {quote(item.expression)}: compilation failed: {error}")
            continue
        if expression.output != "bool":
            text = f"must evaluate to bool but got {expression.output}"
            wrong.append(f"{at}: Invalid value: {quote(item.expression)}: {text}")
        found.append(expression)
    return tuple(found)


def _choice_errors(value: str, allowed: Sequence[str], path: str) -> list[str]:
    if not value:
        return [f"{path}: Required value"]
    if value not in allowed:
        return [f"{path}: Unsupported value: {quote(value)}: supported values: {', '.join(map(quote, allowed))}"]
    return []


def _duration(text: str) -> float:
    """Return the seconds of a field, 0 if it was not given; raise ConfigError if it is no duration at all."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None
