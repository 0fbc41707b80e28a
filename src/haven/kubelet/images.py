"""Makes sure that a container's image is on the node, by its pull policy; and removes unused ones when disks fill up.

Messages and reasons are upstream's, because people search for them.
Source: https://kubernetes.io/docs/concepts/containers/images/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from haven.api.core.v1 import ObjectReference, Pod, Secret
from haven.apimachinery.goformat import quote
from haven.clock import Clock
from haven.cri import errors
from haven.cri.interface import Auth, Image, Runtime, SandboxConfig
from haven.kubelet.backoff import Backoff
from haven.kubelet.events import EventRecorder

__all__ = ["ImageError", "ImageManager", "ImageSettings", "InvalidImageName", "credentials", "normalized_name"]

_REFERENCE = re.compile(
    r"(?P<name>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/|\[[0-9a-fA-F:]+\](?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Limits of pulling and collecting images."""

    parallel_pulls_max: int = 3
    backoff_seconds: float = 10.0
    backoff_seconds_max: float = 300.0
    gc_high_percent: int = 85
    gc_low_percent: int = 80
    gc_min_age_seconds: float = 120.0
    gc_period_seconds: float = 300.0
    unused_age_seconds_max: float = 0.0
    """Images unused for longer are removed although there is room; 0 keeps them."""


class InvalidImageName(ValueError):
    """The text is no image reference."""


class ImageError(Exception):
    """The image is not there. `reason` shows in the container's status, `message` explains."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def normalized_name(image: str) -> str:
    """Return the name with its tag spelled out; raise InvalidImageName."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        if image != image.lower() and _REFERENCE.fullmatch(image.lower()):
            raise InvalidImageName(f"couldn't parse image name {quote(image)}: repository name must be lowercase")
        raise InvalidImageName(f"couldn't parse image name {quote(image)}: invalid reference format")
    return image if match["tag"] or match["digest"] else f"{image}:latest"


class ImageManager:
    """Pulls, at most so many at once; remembers failures with back-off, per pod and image."""

    def __init__(self, runtime: Runtime, clock: Clock, recorder: EventRecorder, settings: ImageSettings) -> None:
        self._runtime = runtime
        self._clock = clock
        self._recorder = recorder
        self._pulling = asyncio.Semaphore(settings.parallel_pulls_max)
        self._backoff = Backoff(initial_seconds=settings.backoff_seconds, max_seconds=settings.backoff_seconds_max)
        self._previous_errors: dict[str, str] = {}
        self._failures: dict[str, float] = {}
        self.pulls = 0

    async def ensure(
        self,
        pod: Pod,
        reference: ObjectReference,
        image: str,
        policy: str,
        secrets: Callable[[], Awaitable[Sequence[Secret]]],
        sandbox: SandboxConfig,
    ) -> Image:
        """Return the image that a container shall run; raise ImageError. `secrets` (awaitable) fetches pull secrets."""
        try:
            name = normalized_name(image)
        except InvalidImageName as error:
            message = f"Failed to apply default image tag {quote(image)}: {error}"
            self._recorder.warning(reference, "InspectFailed", message)
            raise ImageError("InvalidImageName", message) from error
        if policy != "Always":
            found = await self._inspect(name, image, reference)
            if found is not None:
                text = f"Container image {quote(image)} already present on machine and can be accessed by the pod"
                self._recorder.normal(reference, "Pulled", text)
                return found
            if policy == "Never":
                message = f"Container image {quote(image)} is not present with pull policy of Never"
                self._recorder.warning(reference, "ErrImageNeverPull", message)
                raise ImageError("ErrImageNeverPull", message)
        return await self._pull(pod, reference, image, name, await secrets(), sandbox)

    async def _inspect(self, name: str, image: str, reference: ObjectReference) -> Image | None:
        try:
            return await self._runtime.image_status(name)
        except errors.RuntimeFailure as error:
            message = f"Failed to inspect image {quote(image)}: {error.rpc_text}"
            self._recorder.warning(reference, "InspectFailed", message)
            raise ImageError("ImageInspectError", message) from error

    async def _pull(
        self,
        pod: Pod,
        reference: ObjectReference,
        image: str,
        name: str,
        secrets: Sequence[Secret],
        sandbox: SandboxConfig,
    ) -> Image:
        key = f"{pod.metadata.uid}_{image}"
        now = self._clock.monotonic_seconds()
        failed_at, text = self._last_failure(key)
        if failed_at is not None and self._backoff.remaining(key, failed_at, now) > 0:
            message = f"Back-off pulling image {quote(image)}"
            self._recorder.normal(reference, "BackOff", message)
            raise ImageError("ImagePullBackOff", f"{message}: {text}" if text else message)
        self._previous_errors.pop(key, None)
        self._recorder.normal(reference, "Pulling", f"Pulling image {quote(image)}")
        started = self._clock.monotonic_seconds()
        async with self._pulling:
            pulling = self._clock.monotonic_seconds()
            try:
                pulled = await self._pull_with_any(name, credentials(name, secrets), sandbox)
            except errors.RuntimeFailure as error:
                self._recorder.warning(reference, "Failed", f"Failed to pull image {quote(image)}: {error.rpc_text}")
                now = self._clock.monotonic_seconds()
                self._backoff.next(key, now)
                self._failures[key] = now
                self._previous_errors[key] = f"ErrImagePull: {error.rpc_text}"
                raise ImageError("ErrImagePull", error.rpc_text) from error
        self._failures.pop(key, None)
        self.pulls += 1
        ended = self._clock.monotonic_seconds()
        self._recorder.normal(
            reference,
            "Pulled",
            f"Successfully pulled image {quote(image)} in {_duration(ended - pulling)} ({_duration(ended - started)} "
            f"including waiting). Image size: {pulled.size_bytes} bytes.",
        )
        return pulled

    def _last_failure(self, key: str) -> tuple[float | None, str]:
        return self._failures.get(key), self._previous_errors.get(key, "")

    async def _pull_with_any(self, name: str, auths: Sequence[Auth], sandbox: SandboxConfig) -> Image:
        """Try each credential that fits the registry, or none if there is none; the last failure counts."""
        failure: errors.RuntimeFailure | None = None
        tries: Sequence[Auth | None] = auths or [None]
        for auth in tries:
            try:
                image_id = await self._runtime.pull_image(name, auth, sandbox)
                found = await self._runtime.image_status(image_id)
                if found is None:
                    raise errors.NotFound(f"image {name} vanished after it was pulled")
                return found
            except errors.RuntimeFailure as error:
                failure = error
        assert failure is not None
        raise failure

    def seconds_until_retry(self, pod_uid: str, image: str) -> float:
        """Return how long an image of a pod is still held back."""
        key = f"{pod_uid}_{image}"
        failed_at = self._failures.get(key)
        if failed_at is None:
            return 0.0
        return self._backoff.remaining(key, failed_at, self._clock.monotonic_seconds())

    def forget(self, pod_uid: str) -> None:
        """Drop what is remembered of a pod."""
        self._backoff.forget(f"{pod_uid}_")
        for memory in (self._previous_errors, self._failures):
            for key in [key for key in memory if key.startswith(f"{pod_uid}_")]:
                del memory[key]


def credentials(image: str, secrets: Sequence[Secret]) -> list[Auth]:
    """Return the credentials in pull secrets that fit an image, best match first.

    Entries may have a scheme, a path (the longest wins) and wildcards in the host.
    """
    found: list[tuple[int, Auth]] = []
    first, slash, rest = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if is_host else ("docker.io", image)
    for secret in secrets:
        for registry, entry in _entries(secret).items():
            wanted = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
            wanted_host, _, wanted_path = wanted.partition("/")
            if wanted_host in ("index.docker.io", "registry-1.docker.io"):
                wanted_host = "docker.io"
            wanted_path = "" if wanted_path in ("v1", "v2") else wanted_path
            if not fnmatch.fnmatchcase(host, wanted_host) or host.count(".") != wanted_host.count("."):
                continue
            if wanted_path and not (path + "/").startswith(wanted_path + "/") and not path.startswith(wanted_path):
                continue
            auth = _auth(entry)
            if auth is not None:
                found.append((len(wanted), auth))
    found.sort(key=lambda item: -item[0])
    return [auth for _, auth in found]


def _entries(secret: Secret) -> dict[str, dict[str, str]]:
    raw = secret.data.get(".dockerconfigjson") or secret.data.get(".dockercfg")
    if raw is None:
        return {}
    try:
        tree = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    entries = tree.get("auths", {}) if secret.data.get(".dockerconfigjson") else tree
    return entries if isinstance(entries, dict) else {}


def _auth(entry: dict[str, str]) -> Auth | None:
    username, password = entry.get("username", ""), entry.get("password", "")
    if not username and entry.get("auth"):
        try:
            username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    if not username and not entry.get("identitytoken") and not entry.get("registrytoken"):
        return None
    return Auth(
        username=username,
        password=password,
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
    )


def _duration(seconds: float) -> str:
    """Return a duration as Go prints it, in milliseconds precision."""
    milliseconds = int(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds / 1000, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text
