"""The pytest plugin: fixtures that hand out clusters, and what a cluster looked like when a test failed.

Nothing heavy is imported before a test asks for a cluster. Options come from the marker:
`@pytest.mark.haven(nodes=3, frozen=True)`, with the fields of haven.testing.Options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster

__all__ = [
    "haven_cluster",
    "haven_cluster_class",
    "haven_cluster_factory",
    "haven_cluster_module",
    "haven_cluster_session",
    "haven_options",
]


class _AsWritten(MetaPathFinder):
    """Loads Haven's modules as any program does.

    pytest rewrites the assertions of every module of a plugin's distribution. Haven's are not tests, and there are
    hundreds: seconds of each run where nothing keeps the result, as in most CI.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of Haven's, no other."""
        return PathFinder.find_spec(fullname, path, target) if fullname.startswith("haven.") else None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before a conftest.py can import us: come before pytest's own finder of modules."""
    finder = _AsWritten()
    sys.meta_path.insert(0, finder)
    early_config.add_cleanup(lambda: sys.meta_path.remove(finder))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "haven(**options): how the cluster of this test is made (haven.testing.Options)")


@pytest.fixture(scope="session")
def haven_options() -> dict[str, Any]:
    """Options of all clusters; override it in a conftest.py."""
    return {}


def _options(request: pytest.FixtureRequest, base: dict[str, Any]) -> dict[str, Any]:
    options = dict(base)
    for marker in reversed(list(request.node.iter_markers("haven"))):
        options.update(marker.kwargs)
    return options


def _running(options: dict[str, Any]) -> Iterator[Cluster]:
    from haven.testing import Cluster

    with Cluster(**options) as cluster, cluster.environment():
        yield cluster


@pytest.fixture
def haven_cluster(request: pytest.FixtureRequest, haven_options: dict[str, Any]) -> Iterator[Cluster]:
    """A fresh cluster for one test; KUBECONFIG leads to it."""
    yield from _running(_options(request, haven_options))


@pytest.fixture(scope="class")
def haven_cluster_class(request: pytest.FixtureRequest, haven_options: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster for the tests of a class."""
    yield from _running(_options(request, haven_options))


@pytest.fixture(scope="module")
def haven_cluster_module(request: pytest.FixtureRequest, haven_options: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster for the tests of a module."""
    yield from _running(_options(request, haven_options))


@pytest.fixture(scope="session")
def haven_cluster_session(haven_options: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster for all tests (of one pytest-xdist worker)."""
    yield from _running(haven_options)


@pytest.fixture
def haven_cluster_factory(haven_options: dict[str, Any]) -> Iterator[Callable[..., Cluster]]:
    """Makes as many clusters as a test wants; they end with it."""
    import os

    from haven.testing import Cluster
    from haven.testing.environment import changed_environment, proxy_exceptions

    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        cluster = Cluster(**{**haven_options, **options}).start()
        made.append(cluster)
        return cluster

    try:
        with changed_environment(proxy_exceptions(os.environ, "127.0.0.1")):
            yield make
    finally:
        for cluster in made:
            cluster.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add to a failed test's report what its cluster was like."""
    report: Any = yield
    if call.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            describe = getattr(value, "describe", None)
            if name.startswith("haven_cluster") and describe is not None:
                report.sections.append((f"{name} at the end", describe()))
    return report
