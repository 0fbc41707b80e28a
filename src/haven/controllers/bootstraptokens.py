"""Bootstrap tokens: sign the public cluster-info with each, and delete those whose time is up.

With the signature a machine that knows only a token can tell that cluster-info comes from the cluster it wants to join.
Source: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/ and RFC 7797 (detached JWS)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.controllers.actions import Delete, Requeue, Steps, Update, Wiring, key_from

__all__ = ["BootstrapSigner", "TokenCleaner", "detached_signature", "signing_tokens"]

TYPE = "bootstrap.kubernetes.io/token"
NAME_PREFIX = "bootstrap-token-"
SIGNATURE_PREFIX = "jws-kubeconfig-"
KUBECONFIG = "kubeconfig"
INFO = NamespacedName("kube-public", "cluster-info")
SYSTEM = "kube-system"


def detached_signature(content: str, token_id: str, token_secret: str) -> str:
    """Return a JWS of the content, made with the token, without the content itself."""
    header = _encoded(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{_encoded(content.encode())}"
    signature = hmac.new(token_secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{header}..{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def expiry_seconds(secret: core.Secret) -> float | None:
    """Return when a token's time is up, None if never; one whose time nobody can read has none left."""
    text = _text(secret, "expiration")
    if not text:
        return None
    try:
        return times.parse(text)
    except ValueError:
        return 0.0


def signing_tokens(secrets: list[core.Secret], now_seconds: float) -> dict[str, str]:
    """Return the secret by id of every token that cluster-info may be signed with."""
    result = {}
    for secret in secrets:
        token_id, token_secret = _text(secret, "token-id"), _text(secret, "token-secret")
        if secret.type != TYPE or secret.metadata.name != NAME_PREFIX + token_id or not token_id or not token_secret:
            continue
        expiry = expiry_seconds(secret)
        if expiry is not None and expiry <= now_seconds:
            continue
        if _text(secret, "usage-bootstrap-signing") == "true":
            result[token_id] = token_secret
    return result


def _text(secret: core.Secret, key: str) -> str:
    return secret.data.get(key, b"").decode("utf-8", "replace")


class BootstrapSigner:
    """One key: the ConfigMap cluster-info."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._secrets = wiring.reader(core.Secret, field_selector=f"type={TYPE}")
        self._maps = wiring.reader(core.ConfigMap, field_selector=f"metadata.name={INFO.name}")
        self._secrets.add_handler(lambda old, new: wiring.enqueue(INFO))
        self._maps.add_handler(lambda old, new: wiring.enqueue(INFO))

    def sync(self, key: NamespacedName) -> Steps[None]:
        info = self._maps.get(*INFO)
        if info is None or KUBECONFIG not in info.data:
            return
        now = self._wiring.now_seconds()
        secrets = list(self._secrets.list(SYSTEM))
        signatures = {
            f"{SIGNATURE_PREFIX}{token_id}": detached_signature(info.data[KUBECONFIG], token_id, token_secret)
            for token_id, token_secret in signing_tokens(secrets, now).items()
        }
        kept = {name: text for name, text in info.data.items() if not name.startswith(SIGNATURE_PREFIX)}
        if kept | signatures != info.data:
            changed = serialization.copy(info)
            changed.data = kept | signatures
            yield Update(changed)
        waits = [expiry - now for each in secrets if (expiry := expiry_seconds(each)) is not None and expiry > now]
        if waits:
            yield Requeue(min(waits))


class TokenCleaner:
    """Keys are secrets of bootstrap tokens."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._secrets = wiring.reader(core.Secret, field_selector=f"type={TYPE}")
        self._secrets.add_handler(self._secret_changed)

    def _secret_changed(self, old: core.Secret | None, new: core.Secret | None) -> None:
        if new is not None and new.metadata.namespace == SYSTEM and new.type == TYPE:
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        secret = self._secrets.get(*key)
        expiry = expiry_seconds(secret) if secret is not None else None
        if secret is None or expiry is None:
            return
        wait = expiry - self._wiring.now_seconds()
        if wait > 0:
            yield Requeue(wait)
            return
        try:
            yield Delete(resource_of(core.Secret), *key, uid=secret.metadata.uid)
        except apierrors.Conflict:
            return
