"""What a webhook answered to a review that it was sent, or why that is no answer. Pure.

Source: upstream's clients decode such answers by kind and version; what an answer does not say of these is as expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from haven.api import scheme
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema.gojson import syntax_error

__all__ = ["NoAnswer", "status_of"]

_UNDECIDED = "couldn't get version/kind; json parse error: "
_SCHEME = "pkg/runtime/scheme.go:111"


class NoAnswer(ValueError):
    """The body is no answer to what was asked; the message is upstream's."""


def status_of(body: bytes, kind: str, api_version: str) -> Mapping[str, Any]:
    """Return the status of the review in a body; raise NoAnswer if there is another kind of thing in it."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(f"{_UNDECIDED}{syntax_error(body) or error}") from None
    if not isinstance(tree, dict):
        raise NoAnswer(f"{_UNDECIDED}json: cannot unmarshal into an object of kind {kind}")
    said, version = str(tree.get("kind") or kind), str(tree.get("apiVersion") or api_version)
    if (said, version) != (kind, api_version):
        if not _is_known(version, said):
            raise NoAnswer(f'no kind {quote(said)} is registered for version {quote(version)} in scheme "{_SCHEME}"')
        expected = f"{api_version.rpartition('/')[2]}.{kind}"
        raise NoAnswer(f"converting ({version.rpartition('/')[2]}.{said}) to ({expected}): unknown conversion")
    status = tree.get("status")
    if status is None:
        return {}
    if not isinstance(status, dict):
        raise NoAnswer(f"json: cannot unmarshal into Go struct field {kind}.status of type {kind}Status")
    return status


def _is_known(api_version: str, kind: str) -> bool:
    group, _, version = api_version.rpartition("/")
    if version == "v1beta1" and kind.endswith("Review"):
        version = "v1"  # The older version of the same kinds, which is served no more.
    try:
        scheme.kind_type(group, version, kind)
    except LookupError:
        return (api_version, kind) == ("v1", "Status")
    return True
