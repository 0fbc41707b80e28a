"""ImagePolicyWebhook: a program of the operator says which images may run.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#imagepolicywebhook
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.codecs import yaml
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, forbidden
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.webhooks.caller import CallFailed
from haven.apiserver.webhooks.retrying import Post
from haven.clock import Clock

__all__ = ["ImagePolicy", "ImagePolicyWebhook", "parse_image_policy"]

CACHED_MAX = 1024
AUDIT_PREFIX = "imagepolicywebhook.image-policy.k8s.io/"
FAILED_OPEN = "alpha.image-policy.k8s.io/failed-open"
_DEFAULTS = {"retryBackoff": 0.5, "allowTTL": 300.0, "denyTTL": 30.0}
_RANGES = {
    "retryBackoff": (1e-9, 300.0, 1e-3, "1ns", "5m0s"),
    "allowTTL": (1.0, 1800.0, 1.0, "1s", "30m0s"),
    "denyTTL": (1.0, 1800.0, 1.0, "1s", "30m0s"),
}
"""The bounds of each duration in seconds, how long its unit is, and how the bounds read."""


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """Whom to ask, how long answers count, and what holds when nobody answers."""

    kubeconfig: str
    allow_seconds: float
    deny_seconds: float
    backoff_seconds: float
    default_allow: bool


class _Settings(msgspec.Struct, kw_only=True, frozen=True):
    kube_config_file: str = msgspec.field(default="", name="kubeConfigFile")
    allow_ttl: int = msgspec.field(default=0, name="allowTTL")
    deny_ttl: int = msgspec.field(default=0, name="denyTTL")
    retry_backoff: int = msgspec.field(default=0, name="retryBackoff")
    default_allow: bool = msgspec.field(default=False, name="defaultAllow")


class _Configuration(msgspec.Struct, kw_only=True, frozen=True):
    image_policy: _Settings = msgspec.field(default_factory=_Settings, name="imagePolicy")


def parse_image_policy(document: bytes | None) -> ImagePolicy:
    """Return what a configuration says; raise ConfigError."""
    if document is None:
        raise ConfigError("no config specified")
    try:
        tree, _ = yaml.parse(document)
        found = msgspec.convert(tree, _Configuration).image_policy
    except (yaml.InvalidYAML, msgspec.ValidationError) as error:
        raise ConfigError(str(error)) from None
    return ImagePolicy(
        found.kube_config_file,
        backoff_seconds=_seconds("retryBackoff", found.retry_backoff),
        allow_seconds=_seconds("allowTTL", found.allow_ttl),
        deny_seconds=_seconds("denyTTL", found.deny_ttl),
        default_allow=found.default_allow,
    )


def _seconds(name: str, value: int) -> float:
    if value == -1:
        return 0.0
    if value == 0:
        return _DEFAULTS[name]
    least, most, unit, least_shown, most_shown = _RANGES[name]
    seconds = value * unit
    if not least <= seconds <= most:
        shown = _go_duration(seconds)
        raise ConfigError(f"valid value is between {least_shown} and {most_shown}, got {shown}")
    return seconds


def _go_duration(seconds: float) -> str:
    """Return a duration as Go prints it: 1h0m0s, -5ms."""
    sign, whole = ("-", -seconds) if seconds < 0 else ("", seconds)
    if whole < 1:
        return f"{sign}{whole * 1000:g}ms"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h{minutes}m{rest:g}s" if hours else f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
    return sign + text


class ImagePolicyWebhook:
    """Sends the images of a Pod as an ImageReview; answers are kept for a while."""

    name = "ImagePolicyWebhook"
    resources = frozenset({GroupResource("", "pods")})

    def __init__(self, policy: ImagePolicy, post: Post, clock: Clock) -> None:
        self._policy = policy
        self._post = post
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[dict[str, Any], float]] = OrderedDict()

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource not in ("", "ephemeralcontainers"):
            return
        pod: core.Pod = request.object
        spec = _review_spec(pod, request)
        try:
            status = await self._status(spec)
        except CallFailed as error:
            if not self._policy.default_allow:
                raise forbidden(request, str(error)) from error
            request.audit_annotations[AUDIT_PREFIX + "failed-open"] = "true"
            pod.metadata.annotations = {**pod.metadata.annotations, FAILED_OPEN: "true"}
            return
        for name, value in (status.get("auditAnnotations") or {}).items():
            request.audit_annotations[AUDIT_PREFIX + name] = value
        if not status.get("allowed"):
            reason = status.get("reason")
            text = f"image policy webhook backend denied one or more images: {reason}" if reason else ""
            raise forbidden(request, text or "one or more images rejected by webhook backend")

    async def _status(self, spec: dict[str, Any]) -> dict[str, Any]:
        key = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        now = self._clock.monotonic_seconds()
        known = self._known.get(key)
        if known is not None and known[1] > now:
            return known[0]
        review = {
            "kind": "ImageReview",
            "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {},
            "spec": spec,
            "status": {"allowed": False},
        }
        try:
            answer = orjson.loads(await self._post(orjson.dumps(review)))
            status: dict[str, Any] = dict(answer.get("status") or {})
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
            raise CallFailed(str(error)) from None
        seconds = self._policy.allow_seconds if status.get("allowed") else self._policy.deny_seconds
        self._known[key] = (status, now + seconds)
        self._known.move_to_end(key)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)
        return status


def _review_spec(pod: core.Pod, request: AdmissionRequest) -> dict[str, Any]:
    spec = pod.spec
    images = (
        [one.image for one in spec.ephemeral_containers]
        if request.subresource
        else [one.image for one in (*(spec.containers or ()), *spec.init_containers)]
    )
    result: dict[str, Any] = {}
    if images:
        result["containers"] = [{"image": image} if image else {} for image in images]
    annotations = {key: value for key, value in pod.metadata.annotations.items() if ".image-policy.k8s.io/" in key}
    if annotations:
        result["annotations"] = annotations
    if request.namespace:
        result["namespace"] = request.namespace
    return result
