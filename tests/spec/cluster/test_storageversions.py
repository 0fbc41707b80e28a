"""What a server says of how it stores resources."""

from __future__ import annotations

from haven.api.apiserverinternal import v1alpha1
from haven.api.apiserverinternal.encodings import Stored, recorded
from haven.apimachinery import times

NOW = times.parse("2026-01-01T00:00:00Z")
OLD = Stored("apps", "deployments", "apps/v1beta1", ("apps/v1beta1",), ("apps/v1beta1",))
NEW = Stored("apps", "deployments", "apps/v1", ("apps/v1", "apps/v1beta1"), ("apps/v1",))


def condition(version: v1alpha1.StorageVersion) -> tuple[str, str, str | None]:
    [one] = version.status.conditions
    assert one.type == "AllEncodingVersionsEqual"
    return one.status, one.reason, one.last_transition_time


def test_one_server_agrees_with_itself() -> None:
    version = recorded(None, NEW, "a", NOW)

    assert version.metadata.name == "apps.deployments"
    assert version.status.common_encoding_version == "apps/v1"
    assert condition(version) == ("True", "CommonEncodingVersionSet", "2026-01-01T00:00:00Z")


def test_servers_that_store_otherwise_have_no_version_in_common_until_all_are_new() -> None:
    both_old = recorded(recorded(None, OLD, "a", NOW), OLD, "b", NOW)

    mixed = recorded(both_old, NEW, "a", NOW + 60)
    both_new = recorded(mixed, NEW, "b", NOW + 120)

    assert mixed.status.common_encoding_version is None
    assert condition(mixed) == ("False", "CommonEncodingVersionUnset", "2026-01-01T00:01:00Z")
    assert [one.api_server_id for one in both_new.status.storage_versions] == ["a", "b"]
    assert condition(both_new) == ("True", "CommonEncodingVersionSet", "2026-01-01T00:02:00Z")


def test_a_server_that_says_the_same_again_changes_nothing() -> None:
    once = recorded(None, NEW, "a", NOW)

    assert recorded(once, NEW, "a", NOW + 60) == once


def test_the_core_group_has_a_name_here() -> None:
    assert Stored("", "pods", "v1", ("v1",), ("v1",)).name == "core.pods"
