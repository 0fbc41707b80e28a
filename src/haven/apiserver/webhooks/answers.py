"""What a webhook answered to a review that it was sent, or why that is no answer. Pure.

Source: upstream's clients decode such answers by kind and version; what an answer does not say of these is as expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from haven.api import scheme
from haven.apimachinery.codecs import yaml
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch.dispatch import TYPE_META, json_kind
from haven.apimachinery.schema.gojson import syntax_error

__all__ = ["NoAnswer", "conversion_review", "status_of"]

Tree = dict[str, Any]
_UNDECIDED = "couldn't get version/kind; json parse error: "
_SCHEME, _CONVERSION_SCHEME = "pkg/runtime/scheme.go:111", "pkg/util/webhook/client.go:71"
_EXTENSIONS = ("apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1")
_EXTENSION_KINDS = ("ConversionReview", "CustomResourceDefinition", "CustomResourceDefinitionList")


class NoAnswer(ValueError):
    """The body is no answer to what was asked; the message is upstream's."""


def status_of(body: bytes, kind: str, api_version: str) -> Mapping[str, Any]:
    """Return the status of the review in a body; raise NoAnswer if there is another kind of thing in it."""
    tree = _tree(body)
    said, version = str(tree.get("kind") or kind), str(tree.get("apiVersion") or api_version)
    if (said, version) != (kind, api_version):
        raise _other(said, version, kind, api_version, is_known=_is_known(version, said), place=_SCHEME)
    status = tree.get("status")
    if status is None:
        return {}
    if not isinstance(status, dict):
        raise NoAnswer(f"json: cannot unmarshal into Go struct field {kind}.status of type {kind}Status")
    return status


def conversion_review(body: bytes, api_version: str) -> Tree:
    """Return the ConversionReview in a body, as JSON or YAML; raise NoAnswer if there is something else in it."""
    tree = _tree(body)
    said, version = str(tree.get("kind") or ""), str(tree.get("apiVersion") or "")
    if (said or version) and (said, version) != ("ConversionReview", api_version) and (said and version):
        is_known = (version in _EXTENSIONS and said in _EXTENSION_KINDS) or (version, said) == ("v1", "Status")
        raise _other(said, version, "ConversionReview", api_version, is_known=is_known, place=_CONVERSION_SCHEME)
    for holder, name, of, type_ in (
        (tree, "response", "ConversionReview.response", "v1.ConversionResponse"),
        (tree.get("response"), "result", "ConversionResponse.response.result", "v1.Status"),
        (
            tree.get("response"),
            "convertedObjects",
            "ConversionResponse.response.convertedObjects",
            "[]runtime.RawExtension",
        ),
    ):
        value = holder.get(name) if isinstance(holder, dict) else None
        if value is not None and not isinstance(value, list if type_.startswith("[]") else dict):
            raise NoAnswer(f"json: cannot unmarshal {json_kind(value)} into Go struct field {of} of type {type_}")
    return tree


def _tree(body: bytes) -> Tree:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            tree = None if body.lstrip()[:1] in (b"{", b"[") else yaml.parse(body)[0]
        except yaml.InvalidYAML:
            tree = None
        if tree is None:
            raise NoAnswer(f"{_UNDECIDED}{syntax_error(body) or error}") from None
    if not isinstance(tree, dict):
        raise NoAnswer(f"{_UNDECIDED}json: cannot unmarshal {json_kind(tree)} into Go value of type {TYPE_META}")
    return tree


def _other(said: str, version: str, kind: str, api_version: str, *, is_known: bool, place: str) -> NoAnswer:
    """Return the complaint about a kind of thing that was not asked for."""
    if not is_known:
        return NoAnswer(f'no kind {quote(said)} is registered for version {quote(version)} in scheme "{place}"')
    expected = f"{api_version.rpartition('/')[2]}.{kind}"
    return NoAnswer(f"converting ({version.rpartition('/')[2]}.{said}) to ({expected}): unknown conversion")


def _is_known(api_version: str, kind: str) -> bool:
    group, _, version = api_version.rpartition("/")
    if version == "v1beta1" and kind.endswith("Review"):
        version = "v1"  # The older version of the same kinds, which is served no more.
    try:
        scheme.kind_type(group, version, kind)
    except LookupError:
        return (api_version, kind) == ("v1", "Status")
    return True
