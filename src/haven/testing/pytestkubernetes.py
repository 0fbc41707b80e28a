"""Haven as a provider of pytest-kubernetes: its fixture `k8s`, without Docker and at once.

pytest-kubernetes has no registry of providers, but everything goes through its fixture `k8s_manager`. Import the one
from here in a conftest.py:

    from haven.testing.pytestkubernetes import k8s_manager

Then `k8s` is a Haven cluster unless a test names another provider. kubectl is needed only for what calls kubectl.
Source: https://github.com/Blueshoe/pytest-kubernetes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_kubernetes.providers import select_provider_manager
from pytest_kubernetes.providers.base import AClusterManager

from haven.testing.cluster import Cluster

__all__ = ["HavenManager", "k8s_manager"]

PROVIDER = "haven"
OPTIONS = ("cluster_name", "provider", "version", "provider_config", "kubeconfig_override", "kubeconfig")


class HavenManager(AClusterManager):  # type: ignore[misc]  # It has no types.
    """A cluster manager of pytest-kubernetes; `haven` is the Cluster behind it."""

    haven: Cluster | None = None

    @classmethod
    def get_binary_name(cls) -> str:
        return "kubectl"

    def _ensure_executable(self) -> None:
        """Nothing is executed."""

    def _on_create(self, cluster_options: Any, **kwargs: Any) -> None:
        self.haven = Cluster(**kwargs).start()
        path = Path(cluster_options.kubeconfig_path)
        path.touch(mode=0o600)
        path.write_text(self.haven.kubeconfig.read_text(encoding="utf-8"), encoding="utf-8")

    def _on_delete(self) -> None:
        if self.haven is not None:
            self.haven.close()
            self.haven = None

    def ready(self, timeout: int = 20) -> bool:
        return self.haven is not None

    def delete(self) -> None:
        self._on_delete()
        if self.kubeconfig is not None:
            self.kubeconfig.unlink(missing_ok=True)
            self._cluster_options.kubeconfig_path = None

    def apply(self, input: Path | str | Mapping[str, Any]) -> None:
        self._running.apply(Path(input) if isinstance(input, str) else input)

    def version(self) -> tuple[int, int]:
        found = self._running.request("GET", "/version")
        return int(found["major"]), int(found["minor"])

    def load_image(self, image: str) -> None:
        """Simulated nodes have every image."""

    @property
    def _running(self) -> Cluster:
        if self.haven is None:
            raise RuntimeError("the cluster is not created yet: call create()")
        return self.haven


@pytest.fixture(scope="session")
def k8s_manager(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Choose Haven, unless another provider is named by the test or on the command line."""

    options = {name: request.config.getoption(f"k8s_{name}") for name in OPTIONS}

    def choose(provider_name: str | None = None) -> Any:
        name = provider_name or options["provider"]
        if name == PROVIDER or not (name or options["kubeconfig"] or options["kubeconfig_override"]):
            return HavenManager
        return select_provider_manager(name, options)

    return choose
