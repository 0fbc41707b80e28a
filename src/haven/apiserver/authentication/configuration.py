"""AuthenticationConfiguration: whose tokens are taken, how they make users, and what anonymous users may ask for.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from haven.apimachinery.fielderrors import Path
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import validate_domain_prefixed_path
from haven.apiserver.authentication.jwt import MappedClaim, Mapping_, Rule
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.expressions import BadExpression, Engine, Expression

__all__ = ["Authentication", "IssuerConfig", "parse_authentication"]

VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
ISSUERS_MAX = 64
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
        shown = ",".join(f'{{"Path":{quote(one.path)}}}' for one in anonymous.conditions)
        text = "enabled should be set to true when conditions are defined"
        wrong.append(f"anonymous.conditions: Invalid value: [{shown}]: {text}")
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
        self._claims: set[str] = set()
        self._expressions: set[str] = set()

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
        self._check_email(mapping)
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
        if issuer.url and issuer.discovery_url and issuer.discovery_url.rstrip("/") == issuer.url.rstrip("/"):
            text = f"Invalid value: {quote(issuer.discovery_url)}: discoveryURL must be different from URL"
            self._say(f"{path}.discoveryURL", text)
        if not issuer.audiences:
            self._say(f"{path}.audiences", f"Required value: at least one {path}.audiences is required")
        seen: set[str] = set()
        for index, audience in enumerate(issuer.audiences):
            if not audience:
                self._say(f"{path}.audiences[{index}]", "Required value")
            if audience in seen:
                self._say(f"{path}.audiences[{index}]", f"Duplicate value: {quote(audience)}")
            seen.add(audience)
        if len(issuer.audiences) > 1 and issuer.audience_match_policy != "MatchAny":
            text = "audienceMatchPolicy must be MatchAny for multiple audiences"
            text = f"Invalid value: {quote(issuer.audience_match_policy)}: {text}"
            self._say(f"{path}.audienceMatchPolicy", text)
        if len(issuer.audiences) == 1 and issuer.audience_match_policy not in ("", "MatchAny"):
            text = "audienceMatchPolicy must be empty or MatchAny for single audience"
            text = f"Invalid value: {quote(issuer.audience_match_policy)}: {text}"
            self._say(f"{path}.audienceMatchPolicy", text)
        if issuer.egress_selector_type not in ("", "controlplane", "cluster"):
            text = "egress selector must be either controlplane or cluster"
            self._say(f"{path}.egressSelectorType", f"Invalid value: {quote(issuer.egress_selector_type)}: {text}")
        elif issuer.egress_selector_type:  # There is one network, so nothing to select from.
            text = f"oidc: egress lookup required with egress selector type {quote(issuer.egress_selector_type)}"
            self._wrong.append(text)
        if issuer.certificate_authority and "-----BEGIN CERTIFICATE-----" not in issuer.certificate_authority:
            self._say(f"{path}.certificateAuthority", 'Invalid value: "<omitted>": data does not contain any valid RSA')

    def _check_url(self, url: str, path: str, *, required: bool) -> None:
        if not url:
            if required:
                self._say(path, "Required value")
            return
        if url.startswith(":"):
            self._say(path, f"Invalid value: {quote(url)}: parse {quote(url)}: missing protocol scheme")
            return
        for bad, text in (
            (not url.startswith("https://"), "URL scheme must be https"),
            ("@" in url.partition("://")[2].partition("/")[0], "URL must not contain a username or password"),
            ("?" in url, "URL must not contain a query"),
            ("#" in url, "URL must not contain a fragment"),
        ):
            if bad:
                self._say(path, f"Invalid value: {quote(url)}: {text}")

    def _compile(self, expression: str, path: str, variable: str, *, condition: bool = False) -> Expression | None:
        """Return the expression, None if it is wrong. What a mapping comes to is looked at when there are claims."""
        try:
            found = self._engine.compile(expression, variable)
        except BadExpression as error:
            self._say(path, f"Invalid value: {quote(expression)}: compilation failed: {error}")
            return None
        if condition and found.output != "bool":
            self._say(path, f"Invalid value: {quote(expression)}: must evaluate to bool")
            return None
        return found

    def _claim_rule(self, rule: _ClaimRule, path: str) -> Rule:
        if rule.claim and rule.expression:
            self._say(path, f"Invalid value: {quote(rule.claim)}: claim and expression can't both be set")
        elif not rule.claim and not rule.expression:
            self._say(path, "Required value: claim or expression is required")
        elif rule.claim:
            if rule.message:
                text = f"Invalid value: {quote(rule.message)}: may not be specified when claim is set"
                self._say(f"{path}.message", text)
            if rule.claim in self._claims:
                self._say(f"{path}.claim", f"Duplicate value: {quote(rule.claim)}")
            self._claims.add(rule.claim)
            return Rule(claim=rule.claim, required_value=rule.required_value)
        elif rule.required_value:
            text = f"Invalid value: {quote(rule.required_value)}: may not be specified when expression is set"
            self._say(f"{path}.requiredValue", text)
        elif rule.expression in self._expressions:
            self._say(f"{path}.expression", f"Duplicate value: {quote(rule.expression)}")
        else:
            self._expressions.add(rule.expression)
            expression = self._compile(rule.expression, f"{path}.expression", "claims", condition=True)
            return Rule(expression=expression, message=rule.message)
        return Rule()

    def _prefixed(self, item: _Prefixed, path: str, *, required: bool) -> MappedClaim:
        if item.claim and item.expression:
            self._say(path, 'Invalid value: "": claim and expression can\'t both be set')
        elif not item.claim and not item.expression:
            if required:
                self._say(path, "Required value: claim or expression is required")
        elif item.claim:
            if item.prefix is None:
                text = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
                self._say(f"{path}.prefix", f"Required value: {text}")
            return MappedClaim(item.claim, item.prefix or "")
        else:
            if item.prefix is not None:
                text = f"Invalid value: {quote(item.prefix)}: may not be specified when expression is set"
                self._say(f"{path}.prefix", text)
            return MappedClaim(expression=self._compile(item.expression, f"{path}.expression", "claims"))
        return MappedClaim()

    def _uid(self, item: _Plain, path: str) -> MappedClaim:
        if item.claim and item.expression:
            self._say(path, 'Invalid value: "": claim and expression can\'t both be set')
        elif item.expression:
            return MappedClaim(expression=self._compile(item.expression, f"{path}.expression", "claims"))
        return MappedClaim(item.claim)

    def _extra(self, items: Sequence[_Extra], path: str) -> tuple[tuple[str, Expression], ...]:
        found: list[tuple[str, Expression]] = []
        seen: set[str] = set()
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            domain, slash, _ = item.key.partition("/")
            self._wrong += [str(error) for error in validate_domain_prefixed_path(item.key, Path(f"{at}.key"))]
            if item.key != item.key.lower():
                self._say(f"{at}.key", f"Invalid value: {quote(item.key)}: must be lowercase")
            if slash and any(domain == one or domain.endswith(f".{one}") for one in _RESERVED):
                text = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
                self._say(f"{at}.key", f"Invalid value: {quote(item.key)}: {text}")
            if item.key in seen:
                self._say(f"{at}.key", f"Duplicate value: {quote(item.key)}")
                continue
            seen.add(item.key)
            if not item.value_expression:
                self._say(f"{at}.valueExpression", "Required value")
                continue
            expression = self._compile(item.value_expression, f"{at}.valueExpression", "claims")
            if expression is not None:
                found.append((item.key, expression))
        return tuple(found)

    def _user_rules(self, items: Sequence[_UserRule]) -> tuple[Rule, ...]:
        found = []
        seen: set[str] = set()
        for index, item in enumerate(items):
            path = f"{self._path}.userValidationRules[{index}].expression"
            if not item.expression:
                self._say(path, "Required value")
                continue
            if item.expression in seen:
                self._say(path, f"Duplicate value: {quote(item.expression)}")
                continue
            seen.add(item.expression)
            expression = self._compile(item.expression, path, "user", condition=True)
            found.append(Rule(expression=expression, message=item.message))
        return tuple(found)

    def _check_email(self, mapping: Mapping_) -> None:
        """An address that nobody verified names nobody: who uses it in an expression has to use email_verified too."""
        username = mapping.username.expression
        if username is None or "email" not in username.selected:
            return
        others = [rule.expression for rule in mapping.claim_rules] + [expression for _, expression in mapping.extra]
        if not any(one is not None and "email_verified" in one.selected for one in (username, *others)):
            text = (
                "claims.email_verified must be used in claimMappings.username.expression or"
                " claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is"
                " used in claimMappings.username.expression"
            )
            path = f"{self._path}.claimMappings.username.expression"
            self._say(path, f"Invalid value: {quote(username.text)}: {text}")


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
