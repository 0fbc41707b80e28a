"""What an operator may set on the controllers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of the controller manager; defaults are upstream's unless a reason is given."""

    root_ca_pem: str = ""
    """The authority that signs API servers' certificates, as PEM, for kube-root-ca.crt; "" publishes nothing."""
    disabled: frozenset[str] = frozenset()
    """Names of controllers that do not run, because another program does their work."""
    controllers: tuple[str, ...] = ("*",)
    """Which controllers run, as kube-controller-manager's --controllers has it: names, -names, and * for those that do
    by default; a name may end in -controller."""
    finished_pods_max: int = 12_500
    """Finished Pods beyond this number are removed."""

    node_monitor_grace_seconds: float = 50.0
    """A node that is silent for so long is taken for lost."""
    cluster_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that Pods' addresses come from, one for each family; () gives nodes no part of any."""

    sign_token: Callable[[dict[str, Any]], str] | None = None
    """Makes a service account token that says these claims, for secrets; None fills no secrets."""
    sign_certificate: Callable[[bytes, Sequence[str], int, float], bytes] | None = None
    """Signs a request: (PEM, usages, life in seconds, now in seconds) -> PEM; None leaves requests to others."""
    certificate_seconds: int = 365 * 24 * 3600
    """How long signed certificates live at most."""
    sign_cluster_info: bool = False
    """Whether the public cluster-info is signed with bootstrap tokens, which machines need to join; one machine alone
    needs it not, so it is off."""
    clean_bootstrap_tokens: bool = False
    """Whether bootstrap tokens are deleted when their time is up; the API server refuses them anyway."""

    coordinated_leader_election: bool = False
    """Whether leaders are chosen among the candidates that name a Lease; needs coordination.k8s.io/v1beta1."""

    features: frozenset[str] = frozenset({"DRADeviceTaints"})
    """The feature gates that are on and whose kinds are served; some have controllers of their own."""

    def is_enabled(self, name: str, *, by_default: bool = True) -> bool:
        """Tell whether a controller runs."""
        if name in self.disabled:
            return False
        named = [each for each in self.controllers if each.removeprefix("-").removesuffix("-controller") == name]
        if named:
            return not named[0].startswith("-")
        return by_default and "*" in self.controllers
