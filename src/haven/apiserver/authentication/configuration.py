"""AuthenticationConfiguration: whose tokens are taken, how they make users, and what anonymous users may ask for.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.jwt import MappedClaim, Mapping_, Rule
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.expressions import BadExpression, Engine, Expression

__all__ = ["Authentication", "IssuerConfig", "parse_authentication"]

VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
ISSUERS_MAX = 64
_EXTRA_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.)*[a-z0-9](?:[-a-z0-9]*[a-z0-9])?/\S+")
_RESERVED = ("kubernetes.io", "k8s.io")


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    pass


class _Issuer(_Part, frozen=True):
    url: str = ""
    discovery_url: str = msgspec.field(default="", name="discoveryURL")
    certificate_authority: str = ""
    audiences: tuple[str, ...] = ()
    audience_match_policy: str = ""
    egress_selector_type: str = ""


class _ClaimRule(_Part, frozen=True):
    claim: str = ""
    required_value: str = ""
    expression: str = ""
    message: str = ""


class _Prefixed(_Part, frozen=True):
    claim: str = ""
    prefix: str | None = None
    expression: str = ""


class _Plain(_Part, frozen=True):
    claim: str = ""
    expression: str = ""


class _Extra(_Part, frozen=True):
    key: str = ""
    value_expression: str = ""


class _Mappings(_Part, frozen=True):
    username: _Prefixed = _Prefixed()
    groups: _Prefixed = _Prefixed()
    uid: _Plain = _Plain()
    extra: tuple[_Extra, ...] = ()


class _UserRule(_Part, frozen=True):
    expression: str = ""
    message: str = ""


class _Jwt(_Part, frozen=True):
    issuer: _Issuer = _Issuer()
    claim_validation_rules: tuple[_ClaimRule, ...] = ()
    claim_mappings: _Mappings = _Mappings()
    user_validation_rules: tuple[_UserRule, ...] = ()


class _Condition(_Part, frozen=True):
    path: str = ""


class _Anonymous(_Part, frozen=True):
    enabled: bool = False
    conditions: tuple[_Condition, ...] = ()


class _File(Document, frozen=True):
    jwt: tuple[_Jwt, ...] = ()
    anonymous: _Anonymous | None = None


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """One issuer as a file, or flags, describe it."""

    url: str
    discovery_url: str
    authority_pem: str
    audiences: tuple[str, ...]
    mapping: Mapping_


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a file says. `anonymous` None leaves that to the flag; `anonymous_paths` None allows all paths."""

    issuers: tuple[IssuerConfig, ...]
    anonymous: bool | None = None
    anonymous_paths: Collection[str] | None = None


def parse_authentication(data: bytes, engine: Engine, *, refused_issuers: Sequence[str] = ()) -> Authentication:
    """Return what a file says; raise ConfigError with everything that is wrong."""
    document = read_document(data, _File, "AuthenticationConfiguration", VERSIONS)
    wrong: list[str] = []
    if len(document.jwt) > ISSUERS_MAX:
        wrong.append(f"jwt: Too many: {len(document.jwt)}: must have at most {ISSUERS_MAX} items")
    issuers = []
    for index, item in enumerate(document.jwt):
        reader = _Reader(f"jwt[{index}]", engine, wrong)
        issuers.append(reader.issuer(item, refused_issuers))
    for field, values in (
        ("url", [issuer.url for issuer in issuers]),
        ("discoveryURL", [issuer.discovery_url for issuer in issuers if issuer.discovery_url]),
    ):
        for index, value in enumerate(values):
            if value and value in values[:index]:
                wrong.append(f"jwt[{index}].issuer.{field}: Duplicate value: {quote(value)}")
    anonymous = document.anonymous
    if anonymous is not None and not anonymous.enabled and anonymous.conditions:
        wrong.append("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined")
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    if anonymous is None:
        return Authentication(tuple(issuers))
    paths = frozenset(condition.path for condition in anonymous.conditions) if anonymous.conditions else None
    return Authentication(tuple(issuers), anonymous.enabled, paths)


class _Reader:
    """Reads one issuer; complaints go to `wrong`."""

    def __init__(self, path: str, engine: Engine, wrong: list[str]) -> None:
        self._path = path
        self._engine = engine
        self._wrong = wrong

    def issuer(self, item: _Jwt, refused: Sequence[str]) -> IssuerConfig:
        self._check_issuer(item.issuer, refused)
        mappings = item.claim_mappings
        claim_rules = tuple(
            self._claim_rule(rule, f"{self._path}.claimValidationRules[{index}]")
            for index, rule in enumerate(item.claim_validation_rules)
        )
        path = f"{self._path}.claimMappings"
        mapping = Mapping_(
            username=self._prefixed(mappings.username, f"{path}.username", required=True),
            groups=self._prefixed(mappings.groups, f"{path}.groups", required=False),
            uid=self._uid(mappings.uid, f"{path}.uid"),
            extra=self._extra(mappings.extra, f"{path}.extra"),
            claim_rules=claim_rules,
            user_rules=self._user_rules(item.user_validation_rules),
        )
        self._check_email(item)
        issuer = item.issuer
        return IssuerConfig(issuer.url, issuer.discovery_url, issuer.certificate_authority, issuer.audiences, mapping)

    def _say(self, path: str, text: str) -> None:
        self._wrong.append(f"{path}: {text}")

    def _check_issuer(self, issuer: _Issuer, refused: Sequence[str]) -> None:
        path = f"{self._path}.issuer"
        self._check_url(issuer.url, f"{path}.url", required=True)
        if issuer.url in refused:
            text = f"Invalid value: {quote(issuer.url)}: URL must not overlap with disallowed issuers: "
            self._say(f"{path}.url", f"{text}[{' '.join(refused)}]")
        self._check_url(issuer.discovery_url, f"{path}.discoveryURL", required=False)
        if issuer.discovery_url and issuer.discovery_url == issuer.url:
            text = f"Invalid value: {quote(issuer.discovery_url)}: discoveryURL must be different from URL"
            self._say(f"{path}.discoveryURL", text)
        if not issuer.audiences:
            self._say(f"{path}.audiences", "Required value: at least one jwt[*].issuer.audiences is required")
        seen: set[str] = set()
        for index, audience in enumerate(issuer.audiences):
            if not audience:
                self._say(f"{path}.audiences[{index}]", "Required value: audience can't be empty")
            if audience in seen:
                self._say(f"{path}.audiences[{index}]", f"Duplicate value: {quote(audience)}")
            seen.add(audience)
        if len(issuer.audiences) > 1 and issuer.audience_match_policy != "MatchAny":
            text = "audienceMatchPolicy must be MatchAny for multiple audiences"
            text = f"Invalid value: {quote(issuer.audience_match_policy)}: {text}"
            self._say(f"{path}.audienceMatchPolicy", text)
        if issuer.audience_match_policy not in ("", "MatchAny"):
            text = (
                f"Invalid value: {quote(issuer.audience_match_policy)}: audienceMatchPolicy must be empty or MatchAny"
            )
            self._say(f"{path}.audienceMatchPolicy", text)
        if issuer.certificate_authority and "-----BEGIN CERTIFICATE-----" not in issuer.certificate_authority:
            self._say(f"{path}.certificateAuthority", 'Invalid value: "<omitted>": data does not contain any valid RSA')

    def _check_url(self, url: str, path: str, *, required: bool) -> None:
        if not url:
            if required:
                self._say(path, "Required value: URL is required")
            return
        for bad, text in (
            (not url.startswith("https://"), "URL scheme must be https"),
            ("@" in url.partition("://")[2].partition("/")[0], "URL must not contain a username or password"),
            ("?" in url, "URL must not contain a query"),
            ("#" in url, "URL must not contain a fragment"),
        ):
            if bad:
                self._say(path, f"Invalid value: {quote(url)}: {text}")

    def _compile(self, expression: str, path: str, variable: str, allowed: Callable[[str], bool]) -> Expression | None:
        try:
            found = self._engine.compile(expression, variable)
        except BadExpression as error:
            self._say(path, f"Invalid value: {quote(expression)}: compilation failed: {error}")
            return None
        if not allowed(found.output):
            self._say(path, f"Invalid value: {quote(expression)}: compilation failed: must evaluate to another type")
            return None
        return found

    def _claim_rule(self, rule: _ClaimRule, path: str) -> Rule:
        if rule.claim and rule.expression:
            self._say(path, f"Invalid value: {quote(rule.claim)}: claim and expression can't both be set")
        elif not rule.claim and not rule.expression:
            self._say(path, "Required value: claim or expression is required")
        elif rule.claim:
            if rule.message:
                self._say(
                    f"{path}.message", f"Invalid value: {quote(rule.message)}: message can't be set when claim is set"
                )
            return Rule(claim=rule.claim, required_value=rule.required_value)
        elif rule.required_value:
            text = f"Invalid value: {quote(rule.required_value)}: requiredValue can't be set when expression is set"
            self._say(f"{path}.requiredValue", text)
        else:
            expression = self._compile(rule.expression, f"{path}.expression", "claims", _is_bool)
            return Rule(expression=expression, message=rule.message)
        return Rule()

    def _prefixed(self, item: _Prefixed, path: str, *, required: bool) -> MappedClaim:
        if item.claim and item.expression:
            self._say(path, 'Invalid value: "": claim and expression can\'t both be set')
        elif not item.claim and not item.expression:
            if required:
                self._say(path, "Required value: claim or expression is required")
            if item.prefix is not None:
                self._say(path, "Required value: non-empty claim name is required when prefix is set")
        elif item.claim:
            if item.prefix is None:
                text = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
                self._say(f"{path}.prefix", f"Required value: {text}")
            return MappedClaim(item.claim, item.prefix or "")
        else:
            if item.prefix is not None:
                self._say(
                    f"{path}.prefix", f"Invalid value: {quote(item.prefix)}: prefix can't be set when expression is set"
                )
            allowed = _is_text if required else _is_texts
            return MappedClaim(expression=self._compile(item.expression, f"{path}.expression", "claims", allowed))
        return MappedClaim()

    def _uid(self, item: _Plain, path: str) -> MappedClaim:
        if item.claim and item.expression:
            self._say(path, 'Invalid value: "": claim and expression can\'t both be set')
        if item.expression:
            return MappedClaim(expression=self._compile(item.expression, f"{path}.expression", "claims", _is_text))
        return MappedClaim(item.claim)

    def _extra(self, items: Sequence[_Extra], path: str) -> tuple[tuple[str, Expression], ...]:
        found: list[tuple[str, Expression]] = []
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            domain = item.key.partition("/")[0]
            if not item.key:
                self._say(f"{at}.key", "Required value")
            elif _EXTRA_KEY.fullmatch(item.key) is None:
                text = 'must be a domain-prefixed path (such as "acme.io/foo")'
                self._say(f"{at}.key", f"Invalid value: {quote(item.key)}: {text}")
            elif item.key != item.key.lower():
                self._say(f"{at}.key", f"Invalid value: {quote(item.key)}: key must be lowercase")
            elif any(domain == one or domain.endswith(f".{one}") for one in _RESERVED):
                text = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
                self._say(f"{at}.key", f"Invalid value: {quote(item.key)}: {text}")
            elif item.key in {key for key, _ in found}:
                self._say(f"{at}.key", f"Duplicate value: {quote(item.key)}")
            if not item.value_expression:
                self._say(f"{at}.valueExpression", "Required value: valueExpression is required")
                continue
            expression = self._compile(item.value_expression, f"{at}.valueExpression", "claims", _is_texts)
            if expression is not None:
                found.append((item.key, expression))
        return tuple(found)

    def _user_rules(self, items: Sequence[_UserRule]) -> tuple[Rule, ...]:
        found = []
        seen: set[str] = set()
        for index, item in enumerate(items):
            path = f"{self._path}.userValidationRules[{index}].expression"
            if not item.expression:
                self._say(path, "Required value: expression is required")
                continue
            if item.expression in seen:
                self._say(path, f"Duplicate value: {quote(item.expression)}")
            seen.add(item.expression)
            expression = self._compile(item.expression, path, "user", _is_bool)
            found.append(Rule(expression=expression, message=item.message))
        return tuple(found)

    def _check_email(self, item: _Jwt) -> None:
        """An address that nobody verified names nobody: who uses it in an expression has to use email_verified too."""
        username = item.claim_mappings.username.expression
        if "claims.email" not in username or "claims.email_verified" in username:
            return
        others = [rule.expression for rule in item.claim_validation_rules]
        others += [extra.value_expression for extra in item.claim_mappings.extra]
        if not any("claims.email_verified" in expression for expression in others):
            text = (
                "claims.email_verified must be used in claimMappings.username.expression or"
                " claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is"
                " used in claimMappings.username.expression"
            )
            path = f"{self._path}.claimMappings.username.expression"
            self._say(path, f"Invalid value: {quote(username)}: {text}")


def _is_bool(output: str) -> bool:
    return output == "bool"


def _is_text(output: str) -> bool:
    return output in ("string", "dyn", "any")


def _is_texts(output: str) -> bool:
    return output in ("string", "list", "dyn", "any", "null_type")


def mapping_of_flags(values: Any) -> Mapping_:
    """Return how the --oidc- flags make users."""
    prefix = values.oidc_username_prefix
    if prefix == "-":
        prefix = ""
    elif not prefix and values.oidc_username_claim != "email":
        prefix = f"{values.oidc_issuer_url}#"
    rules = []
    for pair in values.oidc_required_claim:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise ConfigError(f"malformed pair, expect string=string: {pair}")
        rules.append(Rule(claim=name, required_value=value))
    return Mapping_(
        username=MappedClaim(values.oidc_username_claim, prefix),
        groups=MappedClaim(values.oidc_groups_claim, values.oidc_groups_prefix),
        claim_rules=tuple(rules),
    )
