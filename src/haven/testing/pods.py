"""Simulated Pods and nodes in a test's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from haven.testing.podscript import OOM_KILLED, PodScript

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster

__all__ = ["NodeHandle", "PodHandle"]


class PodHandle:
    """One Pod by name. Orders wait until it runs, and return when the API shows what they did."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster = cluster
        self.namespace = namespace
        self.name = name

    def __repr__(self) -> str:
        return f"PodHandle({self.namespace}/{self.name})"

    def _order(self, make: Callable[[PodScript], Any], timeout: float | None) -> PodHandle:
        what = f"Pod {self.namespace}/{self.name} runs"
        self._cluster.run_limited(make(self._cluster.script), timeout, what, (self.namespace, self.name))
        return self

    @property
    def object(self) -> dict[str, Any]:
        """The Pod as the API shows it."""
        return self._cluster.get("Pod", self.name, self.namespace)

    @property
    def phase(self) -> str:
        return str(self.object["status"].get("phase", ""))

    def succeed(self, container: str = "", *, message: str = "", timeout: float | None = None) -> PodHandle:
        """Let all main containers (or one) end with exit code 0."""
        return self._order(lambda s: s.end(self.namespace, self.name, container, 0, "Completed", message), timeout)

    def fail(
        self,
        *,
        exit_code: int = 1,
        reason: str = "",
        message: str = "",
        container: str = "",
        timeout: float | None = None,
    ) -> PodHandle:
        """Let all main containers (or one) end with an error; `message` is the termination message."""
        return self._order(lambda s: s.end(self.namespace, self.name, container, exit_code, reason, message), timeout)

    def crash(self, container: str = "", *, timeout: float | None = None) -> PodHandle:
        """Let it be killed for using too much memory."""
        return self.fail(exit_code=OOM_KILLED, reason="OOMKilled", container=container, timeout=timeout)

    def ready(self, ready: bool | None = True, container: str = "", *, timeout: float | None = None) -> PodHandle:
        """Decide about its readiness; None leaves it to the Pod's behaviour again."""
        return self._order(lambda s: s.ready(self.namespace, self.name, container, ready), timeout)

    def log(self, text: str, container: str = "", *, stream: str = "Stdout", timeout: float | None = None) -> PodHandle:
        """Let it write lines to its log."""
        return self._order(lambda s: s.log(self.namespace, self.name, container, text, stream), timeout)

    def evict(self, reason: str = "Evicted", message: str = "The node was low on resource: memory.") -> PodHandle:
        """Let the node end it: phase Failed with this reason."""
        return self._order(lambda s: s.evict(self.namespace, self.name, reason, message), None)

    def wait_for(self, condition: Any = "Ready", *, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the Pod as `Cluster.wait_for` does; a phase such as "Running" is a condition too."""
        if condition in ("Pending", "Running", "Succeeded", "Failed"):
            condition = {"status": {"phase": condition}}
        return self._cluster.wait_for(f"pod/{self.name}", condition, namespace=self.namespace, timeout=timeout)


class NodeHandle:
    """One simulated node."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    def __repr__(self) -> str:
        return f"NodeHandle({self.name})"

    @property
    def object(self) -> dict[str, Any]:
        """The Node as the API shows it."""
        return self._cluster.get("Node", self.name)

    def ready(self, ready: bool = True) -> None:
        """Let its kubelet report that it is ready, or not."""
        self._cluster.run(self._cluster.world.fleet.set_node_ready(self._known(), ready))

    def power_off(self) -> None:
        """Let it fall silent: no heartbeats, nothing that its Pods do. The rest is up to the controllers and time."""
        self._cluster.run(self._set_alive(False))

    def power_on(self) -> None:
        """Let it go on."""
        self._cluster.run(self._set_alive(True))

    async def _set_alive(self, alive: bool) -> None:
        fleet = self._cluster.world.fleet
        node = fleet.nodes[self._known()]
        if alive:
            await fleet.add_node(node.settings)
        else:
            node.is_alive = False

    def remove(self) -> None:
        """Take it away, with its object."""
        self._cluster.run(self._cluster.world.fleet.remove_node(self._known()))

    def _known(self) -> str:
        nodes = self._cluster.world.fleet.nodes
        if self.name not in nodes:
            raise LookupError(f"there is no simulated node {self.name!r}: {', '.join(nodes) or '(none)'}")
        return self.name
