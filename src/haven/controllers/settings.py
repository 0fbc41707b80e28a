"""What an operator may set on the controllers."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of the controller manager; defaults are upstream's unless a reason is given."""

    root_ca_pem: str = ""
    """The authority that signs API servers' certificates, as PEM, for kube-root-ca.crt; "" publishes nothing."""
    disabled: frozenset[str] = frozenset()
    """Names of controllers that do not run, because another program does their work."""
    finished_pods_max: int = 12_500
    """Finished Pods beyond this number are removed."""

    node_monitor_grace_seconds: float = 50.0
    """A node that is silent for so long is taken for lost."""
    cluster_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that Pods' addresses come from, one for each family; () gives nodes no part of any."""

    def is_enabled(self, name: str) -> bool:
        """Tell whether a controller runs."""
        return name not in self.disabled
