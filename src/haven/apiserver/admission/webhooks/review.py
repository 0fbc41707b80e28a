"""The documents: what a webhook is asked, and what its answer means.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from haven.api.admission import v1
from haven.api.authentication import v1 as authentication
from haven.api.scheme import Resource, subresource_kind
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.codecs import yaml
from haven.apimachinery.goformat import quote
from haven.apimachinery.names import UID
from haven.apimachinery.schema.gojson import syntax_error
from haven.apiserver.admission.interface import AdmissionRequest

__all__ = ["Denied", "InvalidReview", "Verdict", "denial", "read_review", "review_of"]

JSON_PATCH = "JSONPatch"
_GROUP = "admission.k8s.io"


class InvalidReview(Exception):
    """An answer that is none; the message is upstream's. `is_document` tells that it could be read at all."""

    def __init__(self, message: str, *, is_document: bool = True) -> None:
        super().__init__(message)
        self.is_document = is_document


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook decided. `patch` is JSON, empty for none."""

    allowed: bool
    patch: bytes = b""
    patch_type: str = ""
    status: meta.Status | None = None
    warnings: tuple[str, ...] = ()
    audit_annotations: Mapping[str, str] = field(default_factory=dict)


def review_of(
    request: AdmissionRequest, resource: Resource[Any], obj: Any, old: Any, *, version: str, uid: str
) -> bytes:
    """Return the AdmissionReview of a request, as JSON; `obj` and `old` are of the `resource` that matched."""
    kind, own_kind = subresource_kind(resource, request.subresource), request.kind
    own = request.resource
    user = request.user
    review = v1.AdmissionReview(
        api_version=f"{_GROUP}/{version}",
        request=v1.AdmissionRequest(
            uid=UID(uid),
            kind=meta.GroupVersionKind(group=kind.group, version=kind.version, kind=kind.kind),
            resource=meta.GroupVersionResource(
                group=resource.group, version=resource.version, resource=resource.plural
            ),
            sub_resource=request.subresource,
            request_kind=meta.GroupVersionKind(group=own_kind.group, version=own_kind.version, kind=own_kind.kind),
            request_resource=meta.GroupVersionResource(group=own.group, version=own.version, resource=own.plural),
            request_sub_resource=request.subresource,
            name=request.name,
            namespace=request.namespace,
            operation=request.operation,
            user_info=authentication.UserInfo(
                username=user.name,
                uid=user.uid,
                groups=list(user.groups),
                extra={name: list(values) for name, values in user.extra.items()},
            ),
            object=obj,
            old_object=old,
            dry_run=request.dry_run,
            options=request.options or None,
        ),
    )
    return serialization.encode(review)


class _Response(msgspec.Struct, rename="camel"):
    """An answer as it comes; `patch` is base64."""

    uid: str = ""
    allowed: bool = False
    status: meta.Status | None = None
    patch: str | None = None
    patch_type: str | None = None
    audit_annotations: dict[str, str] | None = None
    warnings: list[str] | None = None


class _Review(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    response: _Response | None = None


def read_review(data: bytes, *, version: str, uid: str, mutating: bool) -> Verdict:
    """Return what an answer means; raise InvalidReview."""
    review = _decoded(data, version)
    if review.response is None:
        raise InvalidReview("webhook response was absent")
    response = review.response
    try:
        patch = base64.b64decode(response.patch or "", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidReview("illegal base64 data at input byte 0", is_document=False) from None
    patch_type = response.patch_type
    if version == "v1":
        _check(review, response, patch, uid=uid, mutating=mutating)
    elif mutating:
        patch_type = JSON_PATCH if patch else None
    else:
        patch, patch_type = b"", None
    return Verdict(
        response.allowed,
        patch,
        patch_type or "",
        response.status,
        tuple(response.warnings or ()),
        response.audit_annotations or {},
    )


_HEADER = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
_KNOWN = {
    (f"{_GROUP}/v1", "AdmissionReview"): "v1.AdmissionReview",
    (f"{_GROUP}/v1beta1", "AdmissionReview"): "v1beta1.AdmissionReview",
    ("v1", "Status"): "v1.Status",
}
_WORDS = {"object": "object", "array": "array", "str": "string", "int": "number", "float": "number", "bool": "bool"}
_GO_TYPES = {"str": "string", "bool": "bool", "int": "int32", "array": "[]string", "object": "map[string]string"}
_NAMED_TYPES = {"response": "v1.AdmissionResponse", "response.uid": "types.UID"}
_mismatch = re.compile(r"Expected `([a-z]+)(?: \| null)?`, got `([a-z]+)`(?: - at `\$\.?(.*)`)?")


def _decoded(data: bytes, version: str) -> _Review:
    """Return an answer of the expected kind; what it does not say about its kind is as expected."""
    try:
        tree = msgspec.json.decode(data)
    except msgspec.DecodeError:
        tree = _from_yaml(data)
        if tree is None:
            complaint = _syntax(data)
            text = f"couldn't get version/kind; json parse error: {complaint}"
            raise InvalidReview(text, is_document=False) from None
    if tree is None:
        return _Review()
    if not isinstance(tree, dict):
        what = _WORDS.get("array" if isinstance(tree, list) else type(tree).__name__, "null")
        complaint = f"json: cannot unmarshal {what} into Go value of type {_HEADER}"
        raise InvalidReview(f"couldn't get version/kind; json parse error: {complaint}", is_document=False)
    expected = (f"{_GROUP}/{version}", "AdmissionReview")
    said = (str(tree.get("apiVersion") or expected[0]), str(tree.get("kind") or expected[1]))
    if said != expected:
        text = f'no kind {quote(said[1])} is registered for version {quote(said[0])} in scheme "{_SCHEME}"'
        if said in _KNOWN:
            text = f"converting ({_KNOWN[said]}) to ({_KNOWN[expected]}): unknown conversion"
        raise InvalidReview(text, is_document=False)
    try:
        return msgspec.convert(tree, _Review)
    except msgspec.ValidationError as error:
        raise InvalidReview(_type_error(str(error)), is_document=False) from None


_SCHEME = "pkg/util/webhook/client.go:71"


def _from_yaml(data: bytes) -> dict[str, Any] | None:
    """Return an object that is written in YAML, whatever the answer says it is."""
    try:
        tree, _ = yaml.parse(data)
    except yaml.InvalidYAML:
        return None
    return tree if isinstance(tree, dict) and data.lstrip()[:1] not in (b"{", b"[") else None


def _syntax(data: bytes) -> str:
    """Say what is wrong with a text that is no JSON. One that does not even begin like it is YAML to upstream."""
    if data.lstrip()[:1] in (b"{", b"["):
        return syntax_error(data) or "unexpected end of JSON input"
    return f"json: cannot unmarshal string into Go value of type {_HEADER}"


def _type_error(text: str) -> str:
    """Word a field of the wrong type as Go does."""
    match = _mismatch.match(text)
    if match is None:
        return f"json: {text}"
    expected, got, path = match.groups()
    where = path or ""
    struct = "AdmissionReview"
    if where.startswith("response.status."):
        struct = "Status"
    elif where.startswith("response."):
        struct = "AdmissionResponse"
    kind = _NAMED_TYPES.get(where) or _GO_TYPES.get(expected, expected)
    return f"json: cannot unmarshal {_WORDS.get(got, got)} into Go struct field {struct}.{where} of type {kind}"


def _check(review: _Review, response: _Response, patch: bytes, *, uid: str, mutating: bool) -> None:
    """Insist on what v1 promises; v1beta1 was lenient."""
    if response.uid != uid:
        raise InvalidReview(f"expected response.uid={quote(uid)}, got {quote(response.uid)}")
    if (review.api_version, review.kind) != (f"{_GROUP}/v1", "AdmissionReview"):
        found = f"{review.api_version or '/'}, Kind={review.kind}"
        raise InvalidReview(f"expected webhook response of {_GROUP}/v1, Kind=AdmissionReview, got {found}")
    if not mutating:
        if patch:
            raise InvalidReview("validating webhook may not return response.patch")
        if response.patch_type is not None:
            raise InvalidReview("validating webhook may not return response.patchType")
        return
    if patch and response.patch_type is None:
        raise InvalidReview("webhook returned response.patch but not response.patchType")
    if not patch and response.patch_type is not None:
        raise InvalidReview("webhook returned response.patchType but not response.patch")
    if response.patch_type == "":
        raise InvalidReview('webhook returned invalid response.patchType of ""')


class Denied(apierrors.ApiError):
    """A webhook refused the request; code and reason are its own."""


def denial(name: str, status: meta.Status | None) -> apierrors.ApiError:
    """Return the refusal of a webhook as the client sees it, with the webhook's own code, reason and details."""
    said = status or meta.Status()
    text = f"admission webhook {quote(name)} denied the request"
    if because := said.message or said.reason:
        text += f": {because}"
    else:
        text += " without explanation"
    error = Denied(text, said.details)
    error.code = said.code if said.code >= 400 else 400
    error.reason = said.reason
    return error
