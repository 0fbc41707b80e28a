"""Pod templates compared and named: the hash that sets the generations of a workload apart.

The hash need not be upstream's (that one covers Go's memory layout printed as text), only stable: it is FNV-1a over
the template's JSON and the collision count, in an alphabet without vowels, so that no names come out as words.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.apimachinery import serialization

__all__ = ["HASH_LABEL", "encode_hash", "equal_ignoring_hash", "sorted_tree", "template_hash", "without_hash"]

HASH_LABEL = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def _fnv32a(data: bytes) -> int:
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def encode_hash(data: bytes, collision_count: int | None) -> str:
    """Return a short text that depends on the data and on how often it collided before."""
    salt = b"" if collision_count is None else collision_count.to_bytes(8, "little")
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(_fnv32a(data + salt)))


def template_hash(template: core.PodTemplateSpec, collision_count: int | None) -> str:
    """Return the hash of a template."""
    tree = serialization.to_tree(template)
    return encode_hash(serialization.encode_tree(sorted_tree(tree)), collision_count)


def sorted_tree(tree: Any) -> Any:
    """Return a tree with its keys in order, so that equal trees have one text."""
    if isinstance(tree, dict):
        return {key: sorted_tree(tree[key]) for key in sorted(tree)}
    if isinstance(tree, list):
        return [sorted_tree(each) for each in tree]
    return tree


def without_hash(template: core.PodTemplateSpec) -> core.PodTemplateSpec:
    """Return a copy of a template without the label that tells its hash."""
    result = serialization.copy(template)
    result.metadata.labels.pop(HASH_LABEL, None)
    return result


def equal_ignoring_hash(one: core.PodTemplateSpec, other: core.PodTemplateSpec) -> bool:
    """Tell whether two templates make the same Pods."""
    return without_hash(one) == without_hash(other)
