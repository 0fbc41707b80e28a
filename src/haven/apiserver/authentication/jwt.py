"""Tokens of OpenID issuers: what they claim, whether that is to be believed, and whom it makes of their bearer. Pure.

Keys are brought by issuerkeys.py. Source: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation and
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from haven.apimachinery.apierrors import Unauthorized
from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.interface import CREDENTIAL_ID
from haven.apiserver.expressions import Expression, ExpressionFailed
from haven.apiserver.request import UserInfo
from haven.deferred import deferred

if TYPE_CHECKING:
    from joserfc import errors, jwk, jws
else:
    errors, jwk, jws = deferred("joserfc.errors"), deferred("joserfc.jwk"), deferred("joserfc.jws")

__all__ = ["ALGORITHMS", "Key", "MappedClaim", "Mapping_", "Rule", "check_claims", "header_of", "parse_keys", "verify"]

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
LEEWAY_SECONDS = 300.0
"""How far an issuer's clock may be ahead of ours, for nbf; as go-oidc has it."""

Key: TypeAlias = "jwk.RSAKey | jwk.ECKey"


def header_of(token: str) -> dict[str, Any]:
    """Return a token's header; raise Unauthorized if it is not of a token's form."""
    return _part(token, 0)


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token says, without any trust; raise Unauthorized."""
    return _part(token, 1)


def _part(token: str, index: int) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthorized("oidc: malformed jwt")
    try:
        found = orjson.loads(base64.urlsafe_b64decode(parts[index] + "=" * (-len(parts[index]) % 4)))
    except ValueError:
        raise Unauthorized("oidc: malformed jwt") from None
    if not isinstance(found, dict):
        raise Unauthorized("oidc: malformed jwt")
    return found


def parse_keys(document: bytes) -> list[Key]:
    """Return the public keys of a JSON Web Key Set that can verify; raise ValueError if it is none."""
    tree = orjson.loads(document)
    if not isinstance(tree, dict) or not isinstance(tree.get("keys"), list):
        raise ValueError("no key set")
    found: list[Key] = []
    for item in tree["keys"]:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        try:
            key: jwk.RSAKey | jwk.ECKey | jwk.OctKey | jwk.OKPKey = jwk.JWKRegistry.import_key(item)
        except (errors.JoseError, ValueError, KeyError):
            continue  # Keys of kinds that we do not know concern other programs.
        if isinstance(key, jwk.RSAKey | jwk.ECKey):
            found.append(key)
    return found


def verify(token: str, keys: Sequence[Key], algorithms: Sequence[str]) -> bool:
    """Tell whether one of the keys signed a token, in an allowed way."""
    header = header_of(token)
    wanted = header.get("kid")
    if header.get("alg") not in algorithms:
        raise Unauthorized(
            f"oidc: verify token: oidc: id token signed with unsupported algorithm, expected {_shown(algorithms)}"
            f" got {quote(str(header.get('alg', '')))}"
        )
    for key in keys:
        if wanted and key.kid and key.kid != wanted:
            continue
        try:
            jws.deserialize_compact(token, key, algorithms=list(algorithms))
        except (errors.JoseError, ValueError):
            continue
        return True
    return False


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on the claims, or on the user: a claim's exact value, or an expression that has to be true."""

    claim: str = ""
    required_value: str = ""
    expression: Expression | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class MappedClaim:
    """Where a value comes from: a claim, with something in front, or an expression."""

    claim: str = ""
    prefix: str = ""
    expression: Expression | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is anything to take the value from."""
        return bool(self.claim) or self.expression is not None


@dataclass(frozen=True, slots=True)
class Mapping_:
    """How claims make a user."""

    username: MappedClaim
    groups: MappedClaim = MappedClaim()
    uid: MappedClaim = MappedClaim()
    extra: tuple[tuple[str, Expression], ...] = ()
    claim_rules: tuple[Rule, ...] = ()
    user_rules: tuple[Rule, ...] = ()

    def user(self, claims: Mapping[str, Any]) -> UserInfo:
        """Return whom the claims make; raise Unauthorized."""
        self._check_rules(claims)
        name = self._username(claims)
        groups = self._groups(claims)
        uid = self._uid(claims)
        extra: dict[str, tuple[str, ...]] = {}
        for key, expression in self.extra:
            values = _strings(_evaluate(expression, {"claims": claims}, f'oidc: error evaluating extra "{key}"'), key)
            values = [value for value in values if value]
            if values:
                extra[key] = tuple(values)
        if isinstance(claims.get("jti"), str) and claims["jti"] and CREDENTIAL_ID not in extra:
            extra[CREDENTIAL_ID] = (f"JTI={claims['jti']}",)
        user = UserInfo(name, uid, tuple(groups), extra)
        self._check_user(user)
        return user

    def _check_rules(self, claims: Mapping[str, Any]) -> None:
        for rule in self.claim_rules:
            if rule.expression is not None:
                failure = "oidc: error evaluating claim validation expression"
                if _evaluate(rule.expression, {"claims": claims}, failure) is not True:
                    raise Unauthorized(f"oidc: validation expression failed: {rule.message}")
                continue
            value = claims.get(rule.claim)
            if rule.claim not in claims:
                raise Unauthorized(f"oidc: required claim {rule.claim} not present in ID token")
            if not isinstance(value, str):
                raise Unauthorized(f"oidc: parse claim {rule.claim}: it is no string")
            if value != rule.required_value:
                raise Unauthorized(
                    f"oidc: required claim {rule.claim} value does not match. Got = {value}, want = "
                    f"{rule.required_value}"
                )

    def _username(self, claims: Mapping[str, Any]) -> str:
        source = self.username
        if source.expression is not None:
            value = _evaluate(source.expression, {"claims": claims}, "oidc: error evaluating username claim expression")
            if not isinstance(value, str) or not value:
                raise Unauthorized("oidc: empty username via CEL expression is not allowed")
            return value
        value = claims.get(source.claim)
        if not isinstance(value, str):
            raise Unauthorized(f"oidc: parse username claims {quote(source.claim)}: claim not present")
        if source.claim == "email" and claims.get("email_verified", True) is not True:
            raise Unauthorized("oidc: email not verified")
        return source.prefix + value

    def _groups(self, claims: Mapping[str, Any]) -> list[str]:
        source = self.groups
        if source.expression is not None:
            failure = "oidc: error evaluating group claim expression"
            return _strings(_evaluate(source.expression, {"claims": claims}, failure), "groups")
        value = claims.get(source.claim) if source.claim else None
        if value is None:
            return []
        return [source.prefix + group for group in _strings(value, source.claim)]

    def _uid(self, claims: Mapping[str, Any]) -> str:
        source = self.uid
        if source.expression is not None:
            value = _evaluate(source.expression, {"claims": claims}, "oidc: error evaluating uid claim expression")
        elif source.claim:
            value = claims.get(source.claim)
        else:
            return ""
        if not isinstance(value, str):
            raise Unauthorized("oidc: the uid is no string")
        return value

    def _check_user(self, user: UserInfo) -> None:
        if not self.user_rules:
            return
        shown = {
            "username": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
        }
        for rule in self.user_rules:
            assert rule.expression is not None
            failure = "oidc: error evaluating user info validation rule"
            if _evaluate(rule.expression, {"user": shown}, failure) is not True:
                raise Unauthorized(f"oidc: user validation expression failed: {rule.message}")


def check_claims(claims: Mapping[str, Any], *, issuer: str, audiences: Sequence[str], now: float) -> list[str]:
    """Return the audiences of ours that a token is meant for; raise Unauthorized unless it is good here and now."""
    if claims.get("iss") != issuer:
        raise Unauthorized(f"oidc: id token issued by a different provider, expected {quote(issuer)}")
    meant_for = claims.get("aud")
    found = [meant_for] if isinstance(meant_for, str) else meant_for if isinstance(meant_for, list) else []
    common = [audience for audience in audiences if audience in found]
    if not common:
        raise Unauthorized(f"oidc: verify token: oidc: expected audience in {_shown(audiences)} got {_shown(found)}")
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or isinstance(expires, bool) or expires < now:
        raise Unauthorized("oidc: verify token: oidc: token is expired")
    begins = claims.get("nbf")
    if isinstance(begins, int | float) and now + LEEWAY_SECONDS < begins:
        raise Unauthorized("oidc: verify token: oidc: current time before the nbf (not before) time")
    return common


def _evaluate(expression: Expression, variables: Mapping[str, Any], failure: str) -> Any:
    try:
        return expression.evaluate(variables)
    except ExpressionFailed as error:
        raise Unauthorized(f"{failure}: {error}") from None


def _strings(value: Any, what: str) -> list[str]:
    """Return a string, a list of strings, or nothing, as a list."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise Unauthorized(f"oidc: parse claim {quote(what)}: want a string or a list of strings")


def _shown(values: Sequence[Any]) -> str:
    return "[" + " ".join(quote(str(value)) for value in values) + "]"
