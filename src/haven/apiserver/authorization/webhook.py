"""A webhook that decides: it is sent a SubjectAccessReview, and its answer counts for a while.

Source: https://kubernetes.io/docs/reference/access-authn-authz/webhook/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import orjson

from haven.apimachinery.selectors import SelectorError, parse_fields, parse_labels
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.expressions import Expression, ExpressionFailed
from haven.apiserver.request import UserInfo
from haven.apiserver.webhooks.answers import NoAnswer, status_of
from haven.apiserver.webhooks.caller import CallFailed
from haven.apiserver.webhooks.retrying import Post
from haven.clock import Clock
from haven.metrics.families import Histogram

__all__ = ["WebhookAuthorizer", "WebhookCounts", "review_spec"]

CALL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONDITION_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25)
_CACHED_MAX = 8192
_CACHED_CHARACTERS_MAX = 10_000
"""Questions with longer names are not remembered: whoever asks chooses them."""
_NOTHING = Decision(Verdict.NO_OPINION)
_FIELDS = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
_OPERATORS = {
    "=": "In",
    "==": "In",
    "in": "In",
    "!=": "NotIn",
    "notin": "NotIn",
    "exists": "Exists",
    "!": "DoesNotExist",
}


class WebhookCounts:
    """How often a webhook was asked, or not, and with which result: success, timeout or error."""

    def __init__(self) -> None:
        self.results: dict[str, Histogram] = {}
        self.fail_open: dict[str, int] = {}
        self.conditions = Histogram(CONDITION_BOUNDS)
        self.condition_errors = self.exclusions = 0

    def asked(self, result: str, seconds: float, *, passes: bool) -> None:
        """Count a call; `passes` tells that its failure leaves the decision to others."""
        self.results.setdefault(result, Histogram(CALL_BOUNDS)).add(seconds)
        if result != "success" and passes:
            self.fail_open[result] = self.fail_open.get(result, 0) + 1


class WebhookAuthorizer:
    """Asks a webhook. Of itself it has no opinion: it is a RemoteAuthorizer."""

    def __init__(
        self,
        post: Post,
        clock: Clock,
        *,
        name: str = "",
        version: str = "v1",
        authorized_ttl_seconds: float = 300.0,
        unauthorized_ttl_seconds: float = 30.0,
        failure_denies: bool = False,
        match_conditions: Sequence[Expression] = (),
    ) -> None:
        self.name = name or "default"
        self.counts = WebhookCounts()
        self._post = post
        self._clock = clock
        self._version = f"authorization.k8s.io/{version}"
        self._ttl_seconds = {True: authorized_ttl_seconds, False: unauthorized_ttl_seconds}
        self._on_error = Verdict.DENY if failure_denies else Verdict.NO_OPINION
        self._match_conditions = tuple(match_conditions)
        self._known: OrderedDict[bytes, tuple[Decision, float]] = OrderedDict()

    def authorize(self, attributes: Attributes) -> Decision:
        return _NOTHING

    async def decide(self, attributes: Attributes) -> Decision:
        spec = review_spec(attributes)
        if self._match_conditions:
            began = perf_counter()
            try:
                if not self._concerns(spec):
                    self.counts.exclusions += 1
                    return _NOTHING
            except ExpressionFailed as error:
                self.counts.condition_errors += 1
                return Decision(self._on_error, error=str(error))
            finally:
                self.counts.conditions.add(perf_counter() - began)
        key = orjson.dumps(spec)
        now = self._clock.monotonic_seconds()
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        review = {"kind": "SubjectAccessReview", "apiVersion": self._version, "metadata": {}, "spec": spec}
        passes = self._on_error is Verdict.NO_OPINION
        began = perf_counter()
        try:
            answer = await self._post(orjson.dumps({**review, "status": {"allowed": False}}))
            decision = _decision(status_of(answer, "SubjectAccessReview", self._version))
        except (CallFailed, NoAnswer) as error:
            result = "timeout" if "deadline exceeded" in str(error) else "error"
            self.counts.asked(result, perf_counter() - began, passes=passes)
            return Decision(self._on_error, error=str(error))
        self.counts.asked("success", perf_counter() - began, passes=passes)
        if _is_short(attributes):
            self._known[key] = (decision, now + self._ttl_seconds[decision.verdict is Verdict.ALLOW])
            self._known.move_to_end(key)
            while len(self._known) > _CACHED_MAX:
                self._known.popitem(last=False)
        return decision

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules(incomplete=True, error="webhook authorizer does not support user rule resolution")

    def _concerns(self, spec: dict[str, Any]) -> bool:
        """Tell whether every condition is met; one that is not decides even if others cannot be evaluated."""
        shown = {"user": "", "groups": [], "uid": "", "extra": {}, **spec}
        if "resourceAttributes" in spec:
            shown["resourceAttributes"] = dict.fromkeys(_FIELDS, "") | spec["resourceAttributes"]
        failed: list[str] = []
        for condition in self._match_conditions:
            try:
                if condition.evaluate({"request": shown}) is not True:
                    return False
            except ExpressionFailed as error:
                failed.append(f"cel evaluation error: expression '{condition.text}' resulted in error: {error}")
        if failed:
            raise ExpressionFailed(failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]")
        return True


def review_spec(attributes: Attributes) -> dict[str, Any]:
    """Return the spec of the review that asks about attributes."""
    user = attributes.user
    spec: dict[str, Any] = {}
    if attributes.is_resource:
        asked: dict[str, Any] = {
            key: value
            for key, value in (
                ("namespace", attributes.namespace), ("verb", attributes.verb), ("group", attributes.group),
                ("version", attributes.version), ("resource", attributes.resource),
                ("subresource", attributes.subresource), ("name", attributes.name),
            )
            if value
        }  # fmt: skip
        if fields := _fields(attributes.field_selector):
            asked["fieldSelector"] = {"requirements": fields}
        if labels := _labels(attributes.label_selector):
            asked["labelSelector"] = {"requirements": labels}
        spec["resourceAttributes"] = asked
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    if user.name:
        spec["user"] = user.name
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if user.uid:
        spec["uid"] = user.uid
    return spec


def _fields(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        requirements = parse_fields(text).requirements
    except SelectorError:
        return []
    return [{"key": one.field, "operator": _OPERATORS[one.operator], "values": [one.value]} for one in requirements]


def _labels(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        requirements = parse_labels(text).requirements
    except SelectorError:
        return []
    found = []
    for one in requirements:
        operator = _OPERATORS.get(one.operator)
        if operator is None:
            continue  # gt and lt have no place in a review; leaving them out asks for more.
        item: dict[str, Any] = {"key": one.key, "operator": operator}
        if one.values:
            item["values"] = sorted(one.values)
        found.append(item)
    return found


def _decision(status: Mapping[str, Any]) -> Decision:
    allowed, denied = bool(status.get("allowed")), bool(status.get("denied"))
    reason = str(status.get("reason", ""))
    if allowed and denied:
        text = "webhook subject access review returned both allow and deny response"
        return Decision(Verdict.DENY, reason, text)
    if denied:
        return Decision(Verdict.DENY, reason)
    return Decision(Verdict.ALLOW if allowed else Verdict.NO_OPINION, reason)


def _is_short(attributes: Attributes) -> bool:
    texts = (
        attributes.namespace, attributes.verb, attributes.group, attributes.version, attributes.resource,
        attributes.subresource, attributes.name, attributes.path,
    )  # fmt: skip
    return sum(map(len, texts)) < _CACHED_CHARACTERS_MAX
