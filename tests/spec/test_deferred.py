"""Modules that are imported at their first use."""

from __future__ import annotations

import sys

import pytest

from haven.deferred import deferred


def test_a_module_is_imported_when_something_of_it_is_wanted_and_is_the_same_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    colorsys = deferred("colorsys")

    assert "colorsys" not in sys.modules
    assert not hasattr(colorsys, "__path__")  # As tools ask that look at all modules.
    assert "colorsys" not in sys.modules
    assert colorsys.rgb_to_hls is sys.modules["colorsys"].rgb_to_hls
    assert vars(colorsys)["rgb_to_hls"] is colorsys.rgb_to_hls


def test_what_a_module_lacks_is_told_as_ever() -> None:
    with pytest.raises(AttributeError, match="colorsys"):
        deferred("colorsys").no_such_thing  # noqa: B018
