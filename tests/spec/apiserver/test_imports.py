"""What a server imports before it is ready: a start is mostly imports, so large packages wait until they are wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from haven.apiserver.laterimports import NEEDLESS_BEFORE_READY

_NAMES_OF_ALL = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


def packages_after(statements: str) -> set[str]:
    """Return the packages that a fresh interpreter has imported after some statements."""
    command = [sys.executable, "-c", f"{statements}\n{_NAMES_OF_ALL}"]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "haven.apiserver.assembly, haven.store.sqlite, haven.cluster.pki",
        "haven.controllers.manager, haven.scheduler.runner",
    ],
)
def test_the_parts_of_a_server_import_nothing_that_is_wanted_later_only(modules: str) -> None:
    assert not packages_after(f"import {modules}") & {*NEEDLESS_BEFORE_READY, "rich", "grpc", "kubernetes"}


def test_a_cluster_for_tests_runs_pods_without_what_is_wanted_later_only() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [
        {"name": "main", "image": "web"}]}}  # fmt: skip
    used = packages_after(
        f"from haven.testing import Cluster\nwith Cluster() as cluster:\n    cluster.create({pod})\n"
        "    cluster.wait_for('pod/web', 'Ready', timeout=60)"
    )

    assert "haven" in used
    assert not used & {*NEEDLESS_BEFORE_READY, "rich", "grpc", "kubernetes"}


def test_all_that_was_put_off_is_imported_once_a_server_is_ready() -> None:
    found = packages_after("from haven.apiserver.laterimports import import_rest; import_rest()")

    assert set(NEEDLESS_BEFORE_READY) <= found
