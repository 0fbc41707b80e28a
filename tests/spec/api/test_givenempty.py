"""Empty maps and lists that were written down are told from missing ones, in complaints alone."""

from __future__ import annotations

from typing import Any

from haven.api.core import v1
from haven.api.givenempty import given, mark_given
from haven.apimachinery import serialization


def marked(tree: dict[str, Any]) -> v1.PersistentVolume:
    volume: v1.PersistentVolume = serialization.convert(tree, v1.PersistentVolume)
    mark_given(tree, volume)
    return volume


def test_a_map_that_was_given_empty_is_shown_and_a_missing_one_is_not() -> None:
    assert given(marked({"spec": {"capacity": {}}}).spec.capacity) == {}
    assert given(marked({"spec": {}}).spec.capacity) is None


def test_marks_change_nothing_else() -> None:
    tree = {"metadata": {"labels": {}}, "spec": {"capacity": {}, "accessModes": []}}

    assert marked(tree) == serialization.convert(tree, v1.PersistentVolume)


def test_an_object_that_gives_nothing_empty_has_nothing_to_mark() -> None:
    tree = {"spec": {"capacity": {"storage": "1Gi"}}}

    assert not mark_given(tree, serialization.convert(tree, v1.PersistentVolume))
