"""What an operator may set on the API server."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of one API server; defaults are upstream's unless a reason is given."""

    host: str = "127.0.0.1"
    """The address to listen on. Loopback, because nothing listens beyond it unless the user joins machines."""
    port: int = 6443
    advertise_address: str = ""
    """The address in the Endpoints of the `kubernetes` Service; "" takes `host`, or the machine's own address."""
    pod_side_address: str = ""
    """A second address to listen on, which only this machine's Pods reach; it need not exist yet. "" for none."""
    body_bytes_max: int = 3 * 1024 * 1024
    json_patch_operations_max: int = 10_000
    gzip_bytes_min: int = 128 * 1024
    """Answers above this size are compressed when the client accepts it."""
    requests_in_flight_max: int = 400
    mutating_requests_in_flight_max: int = 200
    priority_and_fairness: bool = True
    """Whether requests in flight are divided among priority levels; without, each of the two limits is for all."""
    write_timeout_seconds: float = 34.0
    """A write that is not stored by then is answered with a timeout; it may or may not have happened."""
    watch_timeout_seconds_min: int = 1800
    """A watch without timeoutSeconds lasts between this and twice as long, so that clients spread."""
    bookmark_interval_seconds: float = 60.0
    shutdown_grace_seconds: float = 5.0
    service_networks: tuple[IPv4Network | IPv6Network, ...] = field(default=(ip_network("10.96.0.0/16"),))
    service_node_ports: range = range(30000, 32768)
    event_ttl_seconds: int = 3600
    watch_history_events_max: int = 1024
    """Changes kept in memory for each resource; older ones are read from the store."""
    watch_queue_events_max: int = 10_000
    """A watcher that lags behind so many changes is cut off, as it can start again where it was."""
    unstable_versions: tuple[str, ...] = ()
    """Alpha and beta versions to serve, as group/version; upstream serves none of them by default either."""
    serve_kubernetes_service: bool = True
    """Whether to keep the Service `kubernetes` and its endpoints in the namespace default."""
    aggregator_routing: bool = False
    """Whether webhooks and extension API servers behind Services are dialled at their endpoints, not at the cluster IP.
    It helps where kube-proxy does not run beside the API server, and Pods' addresses are reachable."""
