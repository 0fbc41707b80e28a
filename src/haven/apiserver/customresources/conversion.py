"""Between the versions of a custom resource: nothing but the apiVersion changes, or a webhook is asked.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from haven.api.apiextensions import v1
from haven.apimachinery import apierrors
from haven.apimachinery.fielderrors import ErrorList, Path, aggregate
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch.dispatch import json_kind
from haven.apimachinery.patch.strategic import GO_TYPES
from haven.apimachinery.validation.labels import validate_labels
from haven.apimachinery.validation.objectmeta import validate_annotations
from haven.apiserver.customresources.meter import EMPTY, INVALID, MALFORMED, PARTIAL, ConversionProblem, CustomMeter

__all__ = ["ConversionFailed", "Converter", "NoneConverter", "ReviewSender", "WebhookConverter"]

Tree = dict[str, Any]


class ConversionFailed(apierrors.InternalError):
    """Objects could not be converted; the request can be tried again."""

    reason = ""


class Converter(Protocol):
    """Converts objects of one kind between its versions."""

    @property
    def is_immediate(self) -> bool:
        """Whether nobody has to be asked: then `convert` never waits."""
        ...

    async def convert(self, trees: Sequence[Tree], api_version: str) -> list[Tree]:
        """Return objects of other versions in this one; the arguments may be changed. Raise ConversionFailed."""
        ...


class NoneConverter:
    """Only the apiVersion differs."""

    is_immediate = True

    async def convert(self, trees: Sequence[Tree], api_version: str) -> list[Tree]:
        return [{**tree, "apiVersion": api_version} for tree in trees]


class ReviewSender(Protocol):
    """Carries a review to a webhook and its answer back; raises what its caller says went wrong, in words."""

    async def send(self, name: str, client: v1.WebhookClientConfig, review: Tree) -> Tree:
        """Return the answer; raise WebhookFailure."""
        ...


class WebhookFailure(Exception):
    """A webhook could not be reached or did not answer as it should."""


class WebhookConverter:
    """Asks the definition's webhook."""

    is_immediate = False

    def __init__(
        self, crd: v1.CustomResourceDefinition, sender: ReviewSender, meter: CustomMeter | None = None
    ) -> None:
        assert crd.spec.conversion is not None
        assert crd.spec.conversion.webhook is not None
        self._name = crd.metadata.name
        self._webhook = crd.spec.conversion.webhook
        self._sender = sender
        self._meter = meter or CustomMeter()

    async def convert(self, trees: Sequence[Tree], api_version: str) -> list[Tree]:
        if not trees:
            return []
        review_version = next(
            (one for one in self._webhook.conversion_review_versions or () if one in ("v1", "v1beta1")), None
        )
        if review_version is None:
            raise ConversionFailed("no supported conversion review versions")
        if len(trees) == 1:
            return await self._ask(trees, api_version, review_version)
        try:
            return await self._ask(trees, api_version, review_version)
        except ConversionFailed as error:
            if isinstance(error.__cause__, WebhookFailure):
                raise
            # Not everything came back as it should: asked one by one, as upstream does, some may.
            return [(await self._ask([tree], api_version, review_version))[0] for tree in trees]

    async def _ask(self, trees: Sequence[Tree], api_version: str, review_version: str) -> list[Tree]:
        before, after = (version.rpartition("/")[2] for version in (str(trees[0]["apiVersion"]), api_version))
        with self._meter.converting(self._name, before, after) as problem:
            return await self._asked(trees, api_version, review_version, problem)

    async def _asked(
        self, trees: Sequence[Tree], api_version: str, review_version: str, problem: ConversionProblem
    ) -> list[Tree]:
        client = self._webhook.client_config
        assert client is not None
        uid = str(uuid.uuid4())
        kind = f"{trees[0]['apiVersion']}, Kind={trees[0]['kind']}"
        try:
            answer = await self._sender.send(
                f"conversion_webhook_for_{self._name}",
                client,
                {
                    "kind": "ConversionReview",
                    "apiVersion": f"apiextensions.k8s.io/{review_version}",
                    "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list(trees)},
                },
            )
            problem.kind = MALFORMED
            converted = _answered(answer, review_version, uid)
        except WebhookFailure as error:
            raise ConversionFailed(f"conversion webhook for {kind} failed: {error}") from error
        problem.kind = PARTIAL if converted else EMPTY
        if len(converted) != len(trees):
            raise ConversionFailed(
                f"conversion webhook for {kind} returned {len(converted)} objects, expected {len(trees)}"
            )
        problem.kind = INVALID
        return [_checked(before, after, api_version, kind) for before, after in zip(trees, converted, strict=True)]


def _answered(answer: Tree, review_version: str, uid: str) -> list[Any]:
    """Return the converted objects; raise WebhookFailure."""
    if review_version == "v1":
        group, _, version = str(answer.get("apiVersion", "")).rpartition("/")
        if (group, version, answer.get("kind")) != ("apiextensions.k8s.io", "v1", "ConversionReview"):
            said = f"{group}/{version}, Kind={answer.get('kind', '')}"
            raise WebhookFailure(
                f"expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {said}"
            )
    response = answer.get("response")
    if not isinstance(response, dict):
        raise WebhookFailure("no response provided")
    if review_version == "v1" and response.get("uid") != uid:
        raise WebhookFailure(f"expected response.uid={quote(uid)}, got {quote(str(response.get('uid', '')))}")
    result = response.get("result") or {}
    if result.get("status") != "Success":
        message = result.get("message")
        raise WebhookFailure(message or f"response.result.status was '{result.get('status', '')}', not 'Success'")
    converted: list[Any] = response.get("convertedObjects") or []
    return converted


def _checked(before: Tree, after: Any, api_version: str, kind: str) -> Tree:
    """Return a converted object with the metadata it had, but for labels and annotations; raise ConversionFailed."""

    def failed(text: str) -> ConversionFailed:
        return ConversionFailed(f"conversion webhook for {kind} returned {text}")

    if not isinstance(after, dict):
        if after is None:
            raise ConversionFailed("unexpected end of JSON input")
        what = f"cannot unmarshal {json_kind(after)} into Go value of type map[string]interface {{}}"
        raise ConversionFailed(f"json: {what}")
    if not after.get("kind"):
        raise ConversionFailed(f"Object 'Kind' is missing in '{orjson.dumps(after).decode()}'")
    if after.get("apiVersion", "") != api_version:
        found = after.get("apiVersion", "")
        raise failed(f"invalid object at index 0: invalid groupVersion (expected {api_version}, received {found})")
    if after["kind"] != before["kind"]:
        found = after["kind"]
        raise failed(f"invalid object at index 0: invalid kind (expected {before['kind']}, received {found})")
    metadata, old = after.get("metadata"), before.get("metadata") or {}
    given = metadata if isinstance(metadata, dict) else {}
    for name, word in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        found = given.get(name, "")
        found = found if isinstance(found, str) else ""
        if found != old.get(name, ""):
            raise failed(f"invalid object: must have the same {word}: {old.get(name, '')} != {found}")
    if not isinstance(metadata, dict):
        what = "missing metadata"
        if "metadata" in after:
            what = f"invalid metadata of type {_go_type(metadata)}"
        raise failed(f"invalid metadata: {what} in converted object")
    restored = copy.deepcopy(old)
    for name in ("labels", "annotations"):
        value = metadata.get(name)
        if value is None:
            restored.pop(name, None)
            continue
        wrong = _map_complaint(name, value, old.get(name) or {})
        if wrong:
            raise failed(f"invalid metadata: {wrong}")
        restored[name] = value
    rest = {key: item for key, item in after.items() if key not in ("kind", "apiVersion", "metadata")}
    return {"kind": after["kind"], "apiVersion": api_version, "metadata": restored, **rest}


def _go_type(value: Any) -> str:
    return "<nil>" if value is None else GO_TYPES[type(value)]


def _map_complaint(name: str, value: Any, old: dict[str, str]) -> str:
    if not isinstance(value, dict):
        return f"invalid metadata.{name} of type {_go_type(value)} in converted object"
    for key, item in value.items():
        if not isinstance(item, str):
            return f"metadata.{name}[{key}] must be a string, but is {_go_type(item)} in converted object"
    errors: ErrorList = []
    if value != old:
        if name == "labels":
            errors = validate_labels(value, Path("metadata", "labels"))
        else:
            errors = validate_annotations(value, Path("metadata", "annotation"))
    return aggregate(errors) if errors else ""
