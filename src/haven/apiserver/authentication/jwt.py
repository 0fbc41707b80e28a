"""Tokens of OpenID issuers: what they claim, whether that is to be believed, and whom it makes of their bearer. Pure.

Keys are brought by issuerkeys.py. Source: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation and
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
LEEWAY_SECONDS = 60.0
"""How far an issuer's clock may be ahead of ours, for nbf; as go-oidc has it."""
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_WELL_KNOWN = {
    "iss": "string", "sub": "string", "aud": "[]string", "exp": "time", "iat": "time", "nbf": "time",
    "nonce": "string", "at_hash": "string", "_claim_names": "map[string]string",
    "_claim_sources": "map[string]oidc.claimSource",
}  # fmt: skip

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
        found = orjson.loads(decoded(parts[index]))
    except ValueError:
        raise Unauthorized("oidc: malformed jwt") from None
    if not isinstance(found, dict):
        raise Unauthorized("oidc: malformed jwt")
    return found


def decoded(text: str) -> bytes:
    """Return what unpadded base64 text holds, as tokens have it; raise ValueError if it is none."""
    bad = next((at for at, char in enumerate(text) if char not in _ALPHABET), None)
    if bad is None and len(text) % 4 == 1:
        bad = len(text) - 1
    if bad is not None:
        raise ValueError(f"illegal base64 data at input byte {bad}")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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
            bare = {name: value for name, value in item.items() if name != "alg"}  # Tokens say how they are signed.
            key: jwk.RSAKey | jwk.ECKey | jwk.OctKey | jwk.OKPKey = jwk.JWKRegistry.import_key(bare)
        except (errors.JoseError, ValueError, KeyError):
            continue  # Keys of kinds that we do not know concern other programs.
        if isinstance(key, jwk.RSAKey | jwk.ECKey):
            found.append(key)
    return found


def verify(token: str, keys: Sequence[Key], algorithms: Sequence[str]) -> bool:
    """Tell whether one of the keys signed a token, in an allowed way."""
    header = header_of(token)
    try:
        for part in token.split("."):
            decoded(part)
    except ValueError as error:
        raise Unauthorized(f"oidc: verify token: oidc: malformed jwt: {error}") from None
    wanted = header.get("kid")
    if header.get("alg") not in algorithms:
        shown = f"expected {_shown(sorted(algorithms))} got {quote(str(header.get('alg', '')))}"
        raise _unverified(f"id token signed with unsupported algorithm, {shown}")
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
        seen = {"claims": claims} if self._has_expressions else {}
        name = self._username(claims, seen)
        groups = self._groups(claims, seen)
        uid = self._uid(claims, seen)
        extra: dict[str, tuple[str, ...]] = {}
        if isinstance(claims.get("jti"), str) and claims["jti"]:
            extra[CREDENTIAL_ID] = (f"JTI={claims['jti']}",)
        found = [(key, one, _evaluate(one, seen, "")) for key, one in self.extra]
        for key, expression, value in found:
            values = _strings(value, f"oidc: error evaluating extra claim expression: {expression.text}")
            if values:
                extra[key] = tuple(values)
        self._check_claims(claims, seen)
        user = UserInfo(name, uid, tuple(groups), extra)
        self._check_user(user)
        return user

    @property
    def _has_expressions(self) -> bool:
        expressions = [one.expression for one in (self.username, self.groups, self.uid)]
        expressions += [rule.expression for rule in self.claim_rules]
        return bool(self.extra) or any(one is not None for one in expressions)

    def _check_claims(self, claims: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
        for rule in self.claim_rules:
            if rule.expression is not None:
                continue
            if rule.claim not in claims:
                raise Unauthorized(f"oidc: required claim {rule.claim} not present in ID token")
            value = _text_of(claims[rule.claim], f"oidc: parse claim {rule.claim}")
            if value != rule.required_value:
                raise Unauthorized(
                    f"oidc: required claim {rule.claim} value does not match. Got = {value}, want = "
                    f"{rule.required_value}"
                )
        _check_rules(self.claim_rules, seen, "oidc: error evaluating claim validation expression: ")

    def _username(self, claims: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
        source = self.username
        if source.expression is not None:
            failure = "oidc: error evaluating username claim expression: "
            value = _evaluate(source.expression, seen, failure)
            if not isinstance(value, str):
                raise Unauthorized(f"{failure}username claim expression must return a string")
            if not value:
                raise Unauthorized("oidc: empty username via CEL expression is not allowed")
            return value
        where = f"oidc: parse username claims {quote(source.claim)}"
        if source.claim not in claims:
            raise Unauthorized(f"{where}: claim not present")
        name = _text_of(claims[source.claim], where)
        if source.claim == "email" and "email_verified" in claims:
            verified = claims["email_verified"]
            if verified is not None and not isinstance(verified, bool):
                raise Unauthorized(f"oidc: parse 'email_verified' claim: {_mismatch(verified, 'bool')}")
            if verified is not True:
                raise Unauthorized("oidc: email not verified")
        return source.prefix + name

    def _groups(self, claims: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
        source = self.groups
        if source.expression is not None:
            failure = "oidc: error evaluating group claim expression"
            return _strings(_evaluate(source.expression, seen, f"{failure}: "), failure)
        if not source.claim or source.claim not in claims:
            return []
        value = claims[source.claim]
        if isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
            found = [item or "" for item in value]
        elif value is None:
            found = []
        else:
            found = [_text_of(value, f"oidc: parse groups claim {quote(source.claim)}")]
        return [source.prefix + group for group in found]

    def _uid(self, claims: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
        source = self.uid
        if source.expression is not None:
            failure = "oidc: error evaluating uid claim expression: "
            value = _evaluate(source.expression, seen, failure)
            if not isinstance(value, str):
                raise Unauthorized(f"{failure}uid claim expression must return a string")
            return value
        if not source.claim:
            return ""
        where = f"oidc: parse uid claim {quote(source.claim)}"
        if source.claim not in claims:
            raise Unauthorized(f"{where}: claim not present")
        return _text_of(claims[source.claim], where)

    def _check_user(self, user: UserInfo) -> None:
        if not self.user_rules:
            return
        shown = {
            "username": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
        }
        _check_rules(self.user_rules, {"user": shown}, "oidc: error evaluating user info validation rule: ")


def check_claims(claims: Mapping[str, Any], *, issuer: str, audiences: Sequence[str], now: float) -> None:
    """Raise Unauthorized unless a token is good here and now: the checks of go-oidc, in their order."""
    _check_types(claims)
    sources = claims.get("_claim_sources") or {}
    for source in (claims.get("_claim_names") or {}).values():
        if not source:
            raise _unverified("failed to obtain source from claim name")
        if source not in sources:
            raise _unverified("source does not exist")
    if claims.get("iss") != issuer:
        shown = f"expected {quote(issuer)} got {quote(str(claims.get('iss') or ''))}"
        raise _unverified(f"id token issued by a different provider, {shown}")
    meant_for = claims.get("aud")
    found = [meant_for] if isinstance(meant_for, str) else meant_for or []
    is_meant = any(audience in found for audience in audiences)
    if not is_meant and len(audiences) == 1:
        raise _unverified(f"expected audience {quote(audiences[0])} got {_shown(found)}")
    expires = int(claims.get("exp") or 0)
    if expires < now:
        raise _unverified(f"token is expired (Token Expiry: {_moment(expires)})")
    begins = claims.get("nbf")
    if begins is not None and now + LEEWAY_SECONDS < int(begins):
        text = f"current time {_moment(now)} before the nbf (not before) time: {_moment(int(begins))}"
        raise _unverified(text)
    if not is_meant:
        raise _unverified(f"expected audience in {_shown(sorted(audiences))} got {_shown(found)}")


def _check_types(claims: Mapping[str, Any]) -> None:
    """Raise Unauthorized if a claim that every token may have is of another type than it has to be."""
    for name, value in claims.items():
        wanted = _WELL_KNOWN.get(name)
        if wanted is None or value is None:
            continue
        found = ""
        if wanted == "string":
            found = "" if isinstance(value, str) else wanted
        elif wanted == "time":
            if isinstance(value, str):
                text = f"invalid number literal, trying to unmarshal {quote(quote(value))} into Number"
                raise _unverified(f"failed to unmarshal claims: json: {text}")
            found = "" if isinstance(value, int | float) and not isinstance(value, bool) else "json.Number"
        elif wanted == "[]string":
            items = value if isinstance(value, list) else [value]
            wrong = next((item for item in items if not isinstance(item, str)), None)
            found, value = ("", value) if wrong is None else ("string" if items is value else wanted, wrong)
        elif not isinstance(value, dict):
            found = wanted
        else:
            item = str if wanted.endswith("]string") else dict
            wrong = next((one for one in value.values() if one is not None and not isinstance(one, item)), None)
            found, value = ("", value) if wrong is None else (wanted.partition("]")[2], wrong)
        if found:
            text = _mismatch(value, found).replace("Go value", f"Go struct field idToken.{name}")
            raise _unverified(f"failed to unmarshal claims: {text}")


def _unverified(text: str) -> Unauthorized:
    return Unauthorized(f"oidc: verify token: oidc: {text}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def _mismatch(value: Any, wanted: str) -> str:
    """Return Go's words for a JSON value of another type than is wanted."""
    kinds = ((bool, "bool"), (str, "string"), (int | float, "number"), (list, "array"), (dict, "object"))
    found = next((name for kind, name in kinds if isinstance(value, kind)), "null")
    return f"json: cannot unmarshal {found} into Go value of type {wanted}"


def _text_of(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unauthorized(f"{where}: {_mismatch(value, 'string')}")
    return value


def _check_rules(rules: Sequence[Rule], variables: Mapping[str, Any], failure: str) -> None:
    """Raise Unauthorized unless every expression is true; all of them are evaluated first."""
    found = [(one, _evaluate(one.expression, variables, failure)) for one in rules if one.expression is not None]
    for rule, value in found:
        assert rule.expression is not None
        if not isinstance(value, bool):
            raise Unauthorized(f"{failure}validation expression must return a boolean")
        if not value:
            raise Unauthorized(f"{failure}validation expression '{rule.expression.text}' failed: {rule.message}")


def _evaluate(expression: Expression, variables: Mapping[str, Any], failure: str) -> Any:
    try:
        return expression.evaluate(variables)
    except ExpressionFailed as error:
        raise Unauthorized(f"{failure}expression '{expression.text}' resulted in error: {error}") from None


def _strings(value: Any, failure: str) -> list[str]:
    """Return a string, a list of strings, or nothing, as a list of what is not empty."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unauthorized(f"{failure}: expression must return a string or a list of strings")
    return [item for item in value if item]


def _shown(values: Sequence[Any]) -> str:
    return "[" + " ".join(quote(str(value)) for value in values) + "]"
