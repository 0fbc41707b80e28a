"""The pytest plugin itself, apart from the clusters it hands out."""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import SourceFileLoader

import pytest

import haven.testing


def test_pytest_does_not_rewrite_the_assertions_of_the_modules_that_make_a_cluster() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestAssertRewriteWarning)
        pytest.register_assert_rewrite("haven.testing.envtest")  # as pytest does for a plugin's distribution

    found = (finder.find_spec("haven.testing.envtest", haven.testing.__path__) for finder in sys.meta_path)
    spec = next(spec for spec in found if spec is not None)

    assert type(spec.loader) is SourceFileLoader
