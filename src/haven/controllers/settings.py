"""What an operator may set on the controllers."""

from __future__ import annotations

from dataclasses import dataclass

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

    def is_enabled(self, name: str) -> bool:
        """Tell whether a controller runs."""
        return name not in self.disabled
