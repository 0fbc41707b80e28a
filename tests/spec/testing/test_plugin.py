"""The pytest plugin itself, apart from the clusters it hands out."""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import SourceFileLoader

import pytest

import haven.testing
from haven.testing.environment import proxy_exceptions
from haven.testing.nodesettings import node_settings


def test_pytest_does_not_rewrite_the_assertions_of_the_modules_that_make_a_cluster() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestAssertRewriteWarning)
        pytest.register_assert_rewrite("haven.testing.envtest")  # as pytest does for a plugin's distribution

    found = (finder.find_spec("haven.testing.envtest", haven.testing.__path__) for finder in sys.meta_path)
    spec = next(spec for spec in found if spec is not None)

    assert type(spec.loader) is SourceFileLoader


BEHIND = [
    ({}, {}),
    ({"HTTPS_PROXY": "http://proxy:3128"}, {"127.0.0.1"}),
    ({"https_proxy": "http://proxy:3128", "no_proxy": "intern, 10.0.0.0/8"}, {"intern", "10.0.0.0/8", "127.0.0.1"}),
    ({"ALL_PROXY": "socks5://proxy", "NO_PROXY": "127.0.0.1"}, {"127.0.0.1"}),
    ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}, {"*"}),
]


@pytest.mark.parametrize(("environment", "expected"), BEHIND)
def test_a_proxy_does_not_stand_between_a_test_and_its_cluster(environment: dict[str, str], expected: set[str]) -> None:
    said = proxy_exceptions(environment, "127.0.0.1")

    assert said.keys() == ({"NO_PROXY", "no_proxy"} if expected else set())
    assert all(set(value.split(",")) == expected for value in said.values())


def test_taints_are_texts_or_dicts() -> None:
    settings = node_settings("gpu", {"taints": ("gpu=yes:NoSchedule", {"key": "odd", "effect": "NoExecute"})})

    assert [(taint.key, taint.value, taint.effect) for taint in settings.taints] == [
        ("gpu", "yes", "NoSchedule"),
        ("odd", "", "NoExecute"),
    ]
