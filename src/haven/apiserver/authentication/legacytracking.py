"""Notes when tokens that live in secrets are used, so that those nobody uses can be retired.

A label on the secret tells the day of its last use; the ConfigMap kube-apiserver-legacy-service-account-token-tracking
in kube-system tells since when such days are noted, without which their absence would mean nothing.
Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-cleaner
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, date, datetime

from haven import telemetry
from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, serialization
from haven.apiserver.authentication.serviceaccounts import LAST_USED_LABEL
from haven.client.interface import Client, Patch, PatchType
from haven.clock import Clock

__all__ = ["LegacyTracking"]

NAMESPACE, NAME = "kube-system", "kube-apiserver-legacy-service-account-token-tracking"
SINCE = "since"
ENSURE_SECONDS = 30 * 60.0
WAITING_MAX = 1000
_CONFIG_MAPS, _SECRETS = scheme.resource_of(core.ConfigMap), scheme.resource_of(core.Secret)
_log = telemetry.logger("apiserver")


class LegacyTracking:
    """Gathers uses and writes them down. `run` has to run; uses beyond WAITING_MAX are noted the next time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], None] = {}
        self._some = asyncio.Event()

    def used(self, secret: core.Secret) -> None:
        """A token was used whose secret does not say so for today."""
        if len(self._used) < WAITING_MAX:
            self._used[secret.metadata.namespace, secret.metadata.name] = None
            self._some.set()

    async def run(self, client: Client) -> None:
        """Write down uses, and see to the ConfigMap, until cancelled."""
        ensured = float("-inf")
        while True:
            now = self._clock.monotonic_seconds()
            if now - ensured >= ENSURE_SECONDS:
                ensured = now
                await self._guarded(self._ensure(client))
            try:
                async with asyncio.timeout(ENSURE_SECONDS):
                    await self._some.wait()
            except TimeoutError:
                continue
            self._some.clear()
            while self._used:
                namespace, name = next(iter(self._used))
                del self._used[namespace, name]
                await self._guarded(self._note(client, namespace, name))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except apierrors.ApiError as error:
            _log.warning("The use of a token was not noted.", error=str(error))

    def _today(self) -> str:
        return str(datetime.fromtimestamp(self._clock.now_seconds(), UTC).date())

    async def _ensure(self, client: Client) -> None:
        try:
            found = await client.get(_CONFIG_MAPS, NAMESPACE, NAME)
        except apierrors.NotFound:
            new = core.ConfigMap(metadata=meta.ObjectMeta(name=NAME, namespace=NAMESPACE), data={SINCE: self._today()})
            try:
                await client.create(_CONFIG_MAPS, new)
            except apierrors.AlreadyExists:
                return  # Another server was quicker.
            return
        if not _is_day(found.data.get(SINCE, "")):
            changed = serialization.copy(found)
            changed.data[SINCE] = self._today()
            await client.update(_CONFIG_MAPS, changed)

    async def _note(self, client: Client, namespace: str, name: str) -> None:
        body = {"metadata": {"labels": {LAST_USED_LABEL: self._today()}}}
        try:
            await client.patch(_SECRETS, namespace, name, Patch(PatchType.MERGE, body))
        except apierrors.NotFound:
            return  # The token went with it.


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
