"""Service account tokens: what they claim, and whether the claims still hold.

A token is bound to its service account and, if asked for, to a pod, a secret or a node: it ends when one of these
is deleted (with a leeway, since a deletion may be announced before it happens). Tokens from secrets, which upstream
calls legacy, are as good as their secret.
Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.apimachinery.apierrors import Unauthorized
from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.interface import CREDENTIAL_ID, Lookup, TokenIdentity
from haven.apiserver.authentication.tokenkeys import BadToken, SigningKeys, unverified_claims
from haven.apiserver.authentication.tokenstatistics import AccountTokenUses
from haven.apiserver.request import UserInfo
from haven.clock import Clock

__all__ = [
    "DEFAULT_ISSUER",
    "EXTENDED_EXPIRATION_SECONDS",
    "GROUP",
    "LAST_USED_LABEL",
    "WARN_ONLY_EXPIRATION_SECONDS",
    "Bound",
    "ServiceAccountTokens",
    "claims",
    "groups",
    "split_username",
    "username",
]

DEFAULT_ISSUER = "https://kubernetes.default.svc"
LEGACY_ISSUER = "kubernetes/serviceaccount"
GROUP = "system:serviceaccounts"
USER_PREFIX = "system:serviceaccount:"
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
INVALID_SINCE_LABEL = "kubernetes.io/legacy-token-invalid-since"
LAST_USED_LABEL = "kubernetes.io/legacy-token-last-used"
LEEWAY_SECONDS = 60.0
WARN_ONLY_EXPIRATION_SECONDS = 60 * 60 + 7
"""The odd lifetime that pods ask for; such tokens live longer than they say, for clients that never reread them."""
EXTENDED_EXPIRATION_SECONDS = 365 * 24 * 60 * 60
_ACCOUNT = re.compile(
    r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):((?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.)*[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)"
)


def username(namespace: str, name: str) -> str:
    """Return the user that a service account is."""
    return f"{USER_PREFIX}{namespace}:{name}"


def groups(namespace: str) -> tuple[str, str]:
    """Return the groups that the service accounts of a namespace are in."""
    return GROUP, f"{GROUP}:{namespace}"


def split_username(user: str) -> tuple[str, str] | None:
    """Return the namespace and name of the service account that a user is; None if it is none."""
    if not user.startswith(USER_PREFIX):
        return None
    match = _ACCOUNT.fullmatch(user, len(USER_PREFIX))
    return None if match is None else (match[1], match[2])


class Bound(NamedTuple):
    """What a token is bound to, beside its service account."""

    pod: core.Pod | None = None
    secret: core.Secret | None = None
    node: core.Node | None = None


def claims(
    account: core.ServiceAccount,
    bound: Bound,
    *,
    issuer: str,
    audiences: Sequence[str],
    now: float,
    expiration_seconds: int,
    warn_after_seconds: int,
    token_id: str,
) -> dict[str, Any]:
    """Return what a new token says."""
    own: dict[str, Any] = {
        "namespace": account.metadata.namespace,
        "serviceaccount": _reference(account.metadata),
    }
    if bound.pod is not None:
        own["pod"] = _reference(bound.pod.metadata)
    if bound.secret is not None:
        own["secret"] = _reference(bound.secret.metadata)
    if bound.node is not None:
        own["node"] = _reference(bound.node.metadata)
    if warn_after_seconds:
        own["warnafter"] = int(now) + warn_after_seconds
    return {
        "aud": list(audiences),
        "exp": int(now) + expiration_seconds,
        "iat": int(now),
        "iss": issuer,
        "jti": token_id,
        "kubernetes.io": own,
        "nbf": int(now),
        "sub": username(account.metadata.namespace, account.metadata.name),
    }


def _reference(metadata: meta.ObjectMeta) -> dict[str, str]:
    reference = {"name": metadata.name}
    if metadata.uid:
        reference["uid"] = metadata.uid
    return reference


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token whose signature is good: its claims never change, only what they refer to does."""

    claims: dict[str, Any]
    legacy: bool


class ServiceAccountTokens:
    """Knows the tokens that the keys signed for one of the issuers (the first of which issues new ones).

    `legacy_token_used` is called with a secret whose token was used on a day that the secret's label does not show.
    """

    def __init__(
        self,
        keys: SigningKeys,
        objects: Lookup,
        clock: Clock,
        *,
        issuers: Sequence[str] = (DEFAULT_ISSUER,),
        api_audiences: Sequence[str] = (DEFAULT_ISSUER,),
        legacy_token_used: Callable[[core.Secret], None] | None = None,
    ) -> None:
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._issuers = frozenset(issuers)
        self._api_audiences = tuple(api_audiences)
        self._legacy_token_used = legacy_token_used
        self._verified: dict[str, _Verified] = {}
        self.uses = AccountTokenUses()
        self._accounts = scheme.resource_of(core.ServiceAccount)
        self._pods = scheme.resource_of(core.Pod)
        self._secrets = scheme.resource_of(core.Secret)
        self._nodes = scheme.resource_of(core.Node)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        verified = self._verified.get(token) or self._verify(token)
        if verified is None:
            return None
        said = verified.claims
        if wrong := _malformed(said, is_legacy=verified.legacy):
            raise Unauthorized(wrong)
        meant_for = tuple(_audiences(said.get("aud")))
        if not meant_for:
            self.uses.legacy += 1
            meant_for = self._api_audiences
        common = tuple(audience for audience in audiences if audience in meant_for)
        if not common:
            raise Unauthorized(
                f"token audiences {_list(meant_for)} is invalid for the target audiences {_list(audiences)}"
            )
        if verified.legacy:
            return self._legacy(token, said, common)
        return self._bound(said, common)

    def _verify(self, token: str) -> _Verified | None:
        try:
            issuer = unverified_claims(token).get("iss")
        except BadToken:
            return None
        legacy = issuer == LEGACY_ISSUER
        if not legacy and issuer not in self._issuers:
            return None
        try:
            verified = _Verified(self._keys.verify(token), legacy)
        except BadToken as error:
            raise Unauthorized(str(error)) from error
        if len(self._verified) >= 16384:
            self._verified.clear()
        self._verified[token] = verified
        return verified

    def _bound(self, said: dict[str, Any], audiences: tuple[str, ...]) -> TokenIdentity:
        now = self._clock.now_seconds()
        expires = _number(said, "exp")
        if expires and now > expires + LEEWAY_SECONDS:
            raise Unauthorized("service account token has expired")
        if _number(said, "nbf") > now + LEEWAY_SECONDS:
            raise Unauthorized("service account token is not valid yet")
        if _number(said, "iat") > now + LEEWAY_SECONDS:
            raise Unauthorized("service account token is issued in the future")
        own = said.get("kubernetes.io") or {}
        namespace = str(own.get("namespace", ""))
        account = own.get("serviceaccount") or {}
        name, uid = str(account.get("name", "")), str(account.get("uid", ""))
        self._check_account(namespace, name, uid, now)
        extra: dict[str, tuple[str, ...]] = {}
        if said.get("jti"):
            extra[CREDENTIAL_ID] = (f"JTI={said['jti']}",)
        if own.get("secret"):
            self._check(self._secrets, namespace, own["secret"], now, "secret", "secret")
        pod, node = own.get("pod"), own.get("node")
        if pod:
            self._check(self._pods, namespace, pod, now, "pod", "pod")
            extra |= {POD_NAME: (pod["name"],), POD_UID: (pod.get("uid", ""),)}
        elif node:
            self._check(self._nodes, "", node, now, "node", "node")
        if node:
            extra[NODE_NAME] = (node["name"],)
            if node.get("uid"):
                extra[NODE_UID] = (node["uid"],)
        annotations = {}
        warn_after = own.get("warnafter")
        if warn_after and now <= warn_after:
            self.uses.valid += 1
        elif warn_after:
            self.uses.stale += 1
            annotations["authentication.k8s.io/stale-token"] = (
                f"subject: {said.get('sub', '')}, seconds after warning threshold: {int(now - warn_after)}"
            )
        user = UserInfo(username(namespace, name), uid, groups(namespace), extra)
        return TokenIdentity(user, audiences, expires, audit_annotations=annotations)

    def _check_account(self, namespace: str, name: str, uid: str, now: float) -> None:
        if not name:
            raise Unauthorized("resource name may not be empty")
        account = self._objects.get(self._accounts, namespace, name)
        if account is None:
            raise Unauthorized(f"serviceaccounts {quote(name)} not found")
        if account.metadata.uid != uid:
            raise Unauthorized(f"service account UID ({account.metadata.uid}) does not match claim ({uid})")
        if _is_gone(account.metadata, now):
            raise Unauthorized(f"service account {namespace}/{name} has been deleted")

    def _check(
        self,
        resource: scheme.Resource[Any],
        namespace: str,
        reference: dict[str, str],
        now: float,
        kind: str,
        claim: str,
    ) -> None:
        found = self._objects.get(resource, namespace, reference.get("name", ""))
        if found is None:
            raise Unauthorized("service account token has been invalidated")
        if found.metadata.uid != reference.get("uid", ""):
            raise Unauthorized(
                f"{kind} UID ({found.metadata.uid}) does not match service account {claim} ref claim"
                f" ({reference.get('uid', '')})"
            )
        if _is_gone(found.metadata, now):
            raise Unauthorized("service account token has been invalidated")

    def _legacy(self, token: str, said: dict[str, Any], audiences: tuple[str, ...]) -> TokenIdentity:
        prefix = "kubernetes.io/serviceaccount/"
        namespace, secret_name, name, uid = (
            str(said.get(prefix + key, ""))
            for key in ("namespace", "secret.name", "service-account.name", "service-account.uid")
        )
        for value, word in (
            (said.get("sub"), "sub"),
            (namespace, "namespace"),
            (secret_name, "secretName"),
            (name, "serviceAccountName"),
            (uid, "serviceAccountUID"),
        ):
            if not value:
                raise Unauthorized(f"{word} claim is missing")
        if split_username(str(said["sub"])) != (namespace, name):
            raise Unauthorized("sub claim is invalid")
        secret = self._objects.get(self._secrets, namespace, secret_name)
        if secret is None or secret.metadata.deletion_timestamp is not None:
            raise Unauthorized("Token has been invalidated")
        if not hmac.compare_digest(secret.data.get("token", b""), token.encode()):
            raise Unauthorized("Token does not match server's copy")
        account = self._objects.get(self._accounts, namespace, name)
        if account is None:
            raise Unauthorized(f"serviceaccounts {quote(name)} not found")
        if account.metadata.deletion_timestamp is not None:
            raise Unauthorized(f"ServiceAccount {namespace}/{name} has been deleted")
        if account.metadata.uid != uid:
            raise Unauthorized(f"ServiceAccount UID ({account.metadata.uid}) does not match claim ({uid})")
        self._note_use(secret)
        if secret.metadata.labels.get(INVALID_SINCE_LABEL):
            self.uses.invalid += 1
            raise Unauthorized(
                f"the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked"
                " invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the"
                f" '{INVALID_SINCE_LABEL}' label from the secret to temporarily allow use of this token"
            )
        generated = any(reference.name == secret_name for reference in account.secrets)
        origin = "autogenerated" if generated else "manual"
        if generated:
            self.uses.generated += 1
        else:
            self.uses.manual += 1
        return TokenIdentity(
            UserInfo(username(namespace, name), uid, groups(namespace)),
            audiences,
            warnings=(
                "Use tokens from the TokenRequest API or manually created secret-based tokens instead of"
                " auto-generated secret-based tokens.",
            )
            if generated
            else (),
            audit_annotations={f"authentication.k8s.io/legacy-token-{origin}-secret": secret_name},
        )

    def _note_use(self, secret: core.Secret) -> None:
        if self._legacy_token_used is None:
            return
        today = datetime.fromtimestamp(self._clock.now_seconds(), UTC).date()
        # Tomorrow counts as well: another server's clock may be ahead.
        if secret.metadata.labels.get(LAST_USED_LABEL) not in {str(today), str(today + timedelta(days=1))}:
            self._legacy_token_used(secret)


def _malformed(said: dict[str, Any], *, is_legacy: bool) -> str:
    """Return what is wrong with the types of claims, in the words of upstream's library; "" if nothing is."""
    for name in ("exp", "nbf", "iat"):
        if not isinstance(said.get(name) or 0, int | float):
            return "go-jose/go-jose/jwt: expected number value to unmarshal NumericDate"
    if not isinstance(said.get("aud") or "", str | list):
        return "go-jose/go-jose/jwt: expected string or array value to unmarshal to Audience"
    own = said.get("kubernetes.io")
    if not is_legacy and own is not None and not isinstance(own, dict):
        found = "string" if isinstance(own, str) else "array" if isinstance(own, list) else "number"
        return f"json: cannot unmarshal {found} into Go value of type serviceaccount.kubernetes"
    return ""


def _is_gone(metadata: meta.ObjectMeta, now: float) -> bool:
    stamp = metadata.deletion_timestamp
    return stamp is not None and times.parse(stamp) < now - LEEWAY_SECONDS


def _audiences(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list) else []


def _number(said: dict[str, Any], key: str) -> float:
    value = said.get(key, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _list(values: Sequence[str]) -> str:
    return "[" + " ".join(quote(value) for value in values) + "]"
