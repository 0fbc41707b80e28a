"""Ways from the API server to Services whose servers run beside the test instead of in Pods."""

from __future__ import annotations

from haven.apiserver.webhooks.services import ServiceAddresses
from haven.apiserver.webhooks.target import ServiceTarget

__all__ = ["Routes"]


class Routes:
    """Knows where Services really are; asks the cluster's own knowledge for the others."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], tuple[str, int]] = {}
        self._others: ServiceAddresses | None = None

    def over(self, others: ServiceAddresses) -> ServiceAddresses:
        """Return these routes, with others for what they do not know."""
        self._others = others
        return self

    def add(self, namespace: str, name: str, host: str, port: int) -> None:
        """Lead a Service to an address, whatever port of it is asked for."""
        self._routes[(namespace, name)] = (host, port)

    def resolve(self, service: ServiceTarget) -> tuple[str, int]:
        """Return (host, port); raise what the cluster's own knowledge raises."""
        known = self._routes.get((service.namespace, service.name))
        if known is not None:
            return known
        assert self._others is not None, "routes are put over others before anybody asks"
        return self._others.resolve(service)
