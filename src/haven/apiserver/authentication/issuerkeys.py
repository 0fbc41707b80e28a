"""The keys of an OpenID issuer, got from where its discovery document says, and got again when a key is new.

Source: https://openid.net/specs/openid-connect-discovery-1_0.html
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import orjson

from haven import telemetry
from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.jwt import Key, parse_keys
from haven.apiserver.authentication.tokenstatistics import KeyFetches
from haven.clock import Clock
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = deferred("aiohttp")

__all__ = ["Fetch", "FetchFailed", "IssuerKeys", "Refused", "https_ask", "https_fetch"]

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the body of a successful GET; raises FetchFailed."""
RETRY_SECONDS = 10.0
FETCH_SECONDS = 30.0
_ANSWER_BYTES_MAX = 1024 * 1024
_log = telemetry.logger("apiserver")


class FetchFailed(Exception):
    """A document could not be got; the message says why."""


class Refused(FetchFailed):
    """The answer was no success; the message is its status."""


class IssuerKeys:
    """Knows an issuer's keys. They are asked for at the first token, and when a token names a key not seen yet."""

    def __init__(self, issuer: str, discovery_url: str, fetch: Fetch, clock: Clock) -> None:
        self._issuer = issuer
        self._discovery_url = discovery_url or issuer.rstrip("/") + "/.well-known/openid-configuration"
        self._fetch = fetch
        self._clock = clock
        self._keys: list[Key] = []
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()
        self.fetches = KeyFetches()

    async def keys(self) -> list[Key]:
        """Return the keys; raise Unauthorized if there are none yet."""
        if not self._keys:
            await self.refresh()
        if not self._keys:
            raise Unauthorized("oidc: authenticator not initialized")
        return self._keys

    async def refresh(self) -> bool:
        """Ask again, unless that was done just now; return whether it was done."""
        async with self._lock:
            now = self._clock.monotonic_seconds()
            if now - self._asked_at < RETRY_SECONDS:
                return False
            self._asked_at = now
            try:
                self._keys = await self._get()
            except (FetchFailed, ValueError) as error:
                _log.warning("The keys of an OpenID issuer were not got.", issuer=self._issuer, error=str(error))
                return False
            return True

    async def _get(self) -> list[Key]:
        found = orjson.loads(await self._fetch(self._discovery_url))
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise ValueError(f"issuer did not match the one that was wanted, {self._issuer}")
        try:
            document = await self._fetch(str(found.get("jwks_uri", "")))
            keys = parse_keys(document)
        except (FetchFailed, ValueError):
            self.fetches.failed_at = self._clock.now_seconds()
            raise
        self.fetches.got_at = self._clock.now_seconds()
        self.fetches.digest = hashlib.sha256(document).hexdigest()
        return keys


def https_fetch(tls: ssl.SSLContext) -> Fetch:
    """Return a way to get documents over HTTPS."""
    ask = https_ask(tls)

    async def fetch(url: str) -> bytes:
        return await ask(url, "")

    return fetch


def https_ask(tls: ssl.SSLContext) -> Callable[[str, str], Awaitable[bytes]]:
    """Return a way to get documents over HTTPS with a bearer token, if there is one."""

    async def ask(url: str, token: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as session,
                session.get(url, headers=headers) as answer,
            ):
                body = await answer.content.read(_ANSWER_BYTES_MAX)
                if answer.status != 200:
                    raise Refused(f"{answer.status} {answer.reason}")
                return body
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise FetchFailed(f"{url}: {error or type(error).__name__}") from None

    return ask
