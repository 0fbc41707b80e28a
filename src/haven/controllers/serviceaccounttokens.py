"""Fill secrets of type service-account-token, delete them with their account, and retire those that nobody uses.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#manual-secret-management-for-serviceaccounts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import UID
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Delete, Fetch, Requeue, Steps, Update, Wiring

__all__ = ["LegacyTokenCleaner", "SignToken", "TokensController", "legacy_claims", "secret_names"]

SignToken = Callable[[dict[str, Any]], str]
"""Makes a token that says these claims."""

TYPE = "kubernetes.io/service-account-token"
NAME, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LAST_USED, INVALID_SINCE = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"
TRACKING = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking")
CLEAN_SECONDS = 24 * 3600.0
UNUSED_SECONDS_MAX = 365 * 24 * 3600.0
DAY_SECONDS = 24 * 3600.0

_SECRETS, _ACCOUNTS = resource_of(core.Secret), resource_of(core.ServiceAccount)


def legacy_claims(account: core.ServiceAccount, secret: core.Secret) -> dict[str, Any]:
    """Return what a token that lives in a secret says; it never expires."""
    prefix = "kubernetes.io/serviceaccount/"
    namespace, name = account.metadata.namespace, account.metadata.name
    return {
        "iss": "kubernetes/serviceaccount",
        "sub": f"system:serviceaccount:{namespace}:{name}",
        f"{prefix}namespace": namespace,
        f"{prefix}secret.name": secret.metadata.name,
        f"{prefix}service-account.name": name,
        f"{prefix}service-account.uid": account.metadata.uid,
    }


@dataclass(frozen=True, slots=True)
class _AccountKey:
    namespace: str
    name: str
    uid: UID


@dataclass(frozen=True, slots=True)
class _SecretKey:
    namespace: str
    name: str
    uid: UID
    account: str
    account_uid: str


class TokensController:
    """Keys are accounts that are gone, and secrets."""

    workers = 5

    def __init__(self, wiring: Wiring, *, sign: SignToken, root_ca_pem: str) -> None:
        self._wiring = wiring
        self._sign = sign
        self._root_ca = root_ca_pem.encode()
        self._accounts = wiring.reader(core.ServiceAccount)
        self._secrets = wiring.reader(core.Secret, field_selector=f"type={TYPE}")
        self._accounts.add_handler(self._account_changed)
        self._secrets.add_handler(self._secret_changed)

    def _account_changed(self, old: core.ServiceAccount | None, new: core.ServiceAccount | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._wiring.enqueue(_AccountKey(old.metadata.namespace, old.metadata.name, old.metadata.uid))

    def _secret_changed(self, old: core.Secret | None, new: core.Secret | None) -> None:
        secret = old if new is None else new
        if secret is None or secret.type != TYPE:
            return
        metadata = secret.metadata
        account, uid = metadata.annotations.get(NAME, ""), metadata.annotations.get(ACCOUNT_UID, "")
        self._wiring.enqueue(_SecretKey(metadata.namespace, metadata.name, metadata.uid, account, uid))

    def sync(self, key: _AccountKey | _SecretKey) -> Steps[None]:
        if isinstance(key, _AccountKey):
            yield from self._delete_tokens(key)
            return
        secret = self._secrets.get(key.namespace, key.name)
        if secret is None or secret.metadata.uid != key.uid:
            yield from self._forget_secret(key)
            return
        account = self._account(key.namespace, key.account, key.account_uid)
        if account is None and key.account:
            account = yield Fetch(_ACCOUNTS, key.namespace, key.account)
            if account is not None and key.account_uid not in ("", account.metadata.uid):
                account = None
        if account is None:
            yield Delete(_SECRETS, key.namespace, key.name, uid=key.uid)
        elif self._is_incomplete(secret):
            yield from self._fill(account, secret)

    def _account(self, namespace: str, name: str, uid: str) -> core.ServiceAccount | None:
        account = self._accounts.get(namespace, name)
        return account if account is not None and uid in ("", account.metadata.uid) else None

    def _delete_tokens(self, key: _AccountKey) -> Steps[None]:
        if self._account(key.namespace, key.name, key.uid) is not None:
            return
        for secret in self._secrets.list(key.namespace):
            annotations = secret.metadata.annotations
            if (annotations.get(NAME), annotations.get(ACCOUNT_UID)) == (key.name, key.uid):
                yield Delete(_SECRETS, key.namespace, secret.metadata.name, uid=secret.metadata.uid)

    def _forget_secret(self, key: _SecretKey) -> Steps[None]:
        """Take a secret that is gone off its account's list."""
        if self._account(key.namespace, key.account, key.account_uid) is None:
            return
        account: core.ServiceAccount | None = yield Fetch(_ACCOUNTS, key.namespace, key.account)
        if account is None or key.account_uid not in ("", account.metadata.uid):
            return
        kept = [each for each in account.secrets if each.name != key.name]
        if len(kept) < len(account.secrets):
            changed = serialization.copy(account)
            changed.secrets = kept
            yield Update(changed)

    def _is_incomplete(self, secret: core.Secret) -> bool:
        has_other_ca = bool(self._root_ca) and secret.data.get("ca.crt") != self._root_ca
        return has_other_ca or not secret.data.get("namespace") or not secret.data.get("token")

    def _fill(self, account: core.ServiceAccount, secret: core.Secret) -> Steps[None]:
        changed = serialization.copy(secret)
        if self._root_ca:
            changed.data["ca.crt"] = self._root_ca
        if not changed.data.get("namespace"):
            changed.data["namespace"] = changed.metadata.namespace.encode()
        if not changed.data.get("token"):
            changed.data["token"] = self._sign(legacy_claims(account, secret)).encode()
        changed.metadata.annotations[NAME] = account.metadata.name
        changed.metadata.annotations[ACCOUNT_UID] = account.metadata.uid
        try:
            yield Update(changed)
        except (apierrors.Conflict, apierrors.NotFound):
            return  # The cache is behind; what it brings wakes us again.


def secret_names(pod: core.Pod) -> set[str]:
    """Return the names of all secrets that a Pod refers to."""
    tree = serialization.to_tree(pod.spec)
    pulling = {each["name"] for each in tree.get("imagePullSecrets", ()) if each.get("name")}
    return pulling | set(_referred(tree))


def _referred(tree: Any) -> Iterator[str]:
    if isinstance(tree, list):
        for each in tree:
            yield from _referred(each)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "secretName" and isinstance(value, str):
                yield value
            elif key in ("secretRef", "secretKeyRef", "nodePublishSecretRef", "secret") and isinstance(value, dict):
                yield from (value[name] for name in ("name", "secretName") if value.get(name))
            else:
                yield from _referred(value)


class LegacyTokenCleaner:
    """Marks tokens that were made for accounts long ago and not used since, then deletes them. One key, daily."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._accounts = wiring.reader(core.ServiceAccount)
        self._secrets = wiring.reader(core.Secret, field_selector=f"type={TYPE}")
        self._pods = wiring.reader(core.Pod)
        wiring.enqueue("")

    def sync(self, key: str) -> Steps[None]:
        yield Requeue(CLEAN_SECONDS)
        tracking: core.ConfigMap | None = yield Fetch(resource_of(core.ConfigMap), *TRACKING)
        since = _day(tracking.data.get("since", "")) if tracking is not None else None
        now = self._wiring.now_seconds()
        if since is None or now < since + DAY_SECONDS + UNUSED_SECONDS_MAX:
            return  # Use was not recorded for long enough to say that a token is unused.
        mounted: dict[str, set[str]] = {}
        for secret in self._secrets.list():
            namespace = secret.metadata.namespace
            if namespace not in mounted:
                mounted[namespace] = {name for pod in self._pods.list(namespace) for name in secret_names(pod)}
            if self._is_unused(secret, now) and secret.metadata.name not in mounted[namespace]:
                try:
                    yield from self._retire(secret, now)
                except apierrors.ApiError:
                    continue  # The next round comes; one that resists must not hold up the others.

    def _is_unused(self, secret: core.Secret, now: float) -> bool:
        metadata = secret.metadata
        oldest = now - UNUSED_SECONDS_MAX
        if secret.type != TYPE or metadata.deletion_timestamp is not None:
            return False
        if not metadata.creation_timestamp or times.parse(metadata.creation_timestamp) >= oldest:
            return False
        if LAST_USED in metadata.labels:
            used = metadata.labels[LAST_USED]
            if _day(used) is None or used >= times.format_time(oldest)[:10]:
                return False
        account = self._accounts.get(metadata.namespace, metadata.annotations.get(NAME, ""))
        if account is None or metadata.annotations.get(ACCOUNT_UID, "") not in ("", account.metadata.uid):
            return False
        return any(each.name == metadata.name for each in account.secrets)

    def _retire(self, secret: core.Secret, now: float) -> Steps[None]:
        metadata = secret.metadata
        invalid_since = metadata.labels.get(INVALID_SINCE, "")
        if _day(invalid_since) is None:
            labels = {INVALID_SINCE: times.format_time(now)[:10]}
            patch = Patch(PatchType.MERGE, {"metadata": {"uid": metadata.uid, "labels": labels}})
            yield Change(_SECRETS, metadata.namespace, metadata.name, patch)
        elif invalid_since < times.format_time(now - UNUSED_SECONDS_MAX)[:10]:
            version = metadata.resource_version
            yield Delete(_SECRETS, metadata.namespace, metadata.name, resource_version=version)


def _day(text: str) -> float | None:
    """Return the beginning of a day such as 2026-01-31 in seconds since 1970; None if it is no day."""
    try:
        return times.parse(f"{text}T00:00:00Z")
    except ValueError:
        return None
