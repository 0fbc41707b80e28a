"""Versions that are gone."""

from __future__ import annotations

from haven.api.retired import is_retired


def test_a_version_that_is_served_no_longer_is_still_known() -> None:
    assert is_retired("extensions", "v1beta1", "Deployment")
    assert not is_retired("apps", "v1", "Deployment")
