"""What an operator may set on the API server."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

__all__ = ["SecuritySettings", "Settings"]


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SecuritySettings:
    """Who is believed, who may what, what is written down, what is encrypted. Names are those of upstream's flags."""

    anonymous_auth: bool | None = _flag(None, "Whether requests without credentials are taken as system:anonymous.")
    authentication_config: str = _flag("", "File with an AuthenticationConfiguration.")
    authentication_token_webhook_config_file: str = _flag("", "Kubeconfig of a webhook that reviews tokens.")
    authentication_token_webhook_version: str = _flag("v1beta1", "Version of the TokenReview it is sent.")
    authentication_token_webhook_cache_ttl_seconds: float = _flag(120.0, "How long its answers count.")
    api_audiences: tuple[str, ...] = _flag((), "What tokens for this server are meant for; default is the issuer.")
    token_auth_file: str = _flag("", "File with fixed tokens: token,user,uid,groups.")
    oidc_issuer_url: str = _flag("", "URL of an OpenID issuer whose tokens are taken.")
    oidc_client_id: str = _flag("", "The audience that its tokens must have.")
    oidc_username_claim: str = _flag("sub", "The claim that is the user's name.")
    oidc_username_prefix: str = _flag("", "Stands before the name; - for nothing.")
    oidc_groups_claim: str = _flag("", "The claim that holds the user's groups.")
    oidc_groups_prefix: str = _flag("", "Stands before each group.")
    oidc_required_claim: tuple[str, ...] = _flag((), "name=value pairs that tokens must have.")
    oidc_signing_algs: tuple[str, ...] = _flag(("RS256",), "How tokens may be signed.")
    oidc_ca_file: str = _flag("", "Authorities of the issuer's certificate.")
    service_account_lookup: bool = _flag(True, "Whether tokens end with what they are bound to.")
    service_account_max_token_expiration_seconds: float = _flag(0.0, "How long a token may be good; 0 for any time.")
    service_account_extend_token_expiration: bool = _flag(True, "Whether tokens of Pods live a year.")
    authorization_mode: tuple[str, ...] = _flag(("Node", "RBAC"), "Who decides, in this order.")
    authorization_config: str = _flag("", "File with an AuthorizationConfiguration.")
    authorization_policy_file: str = _flag("", "File with ABAC policies, one on each line.")
    authorization_webhook_config_file: str = _flag("", "Kubeconfig of a webhook that decides.")
    authorization_webhook_version: str = _flag("v1beta1", "Version of the SubjectAccessReview it is sent.")
    authorization_webhook_cache_authorized_ttl_seconds: float = _flag(300.0, "How long its yes counts.")
    authorization_webhook_cache_unauthorized_ttl_seconds: float = _flag(30.0, "How long its no counts.")
    audit_policy_file: str = _flag("", "File with the audit Policy.")
    audit_log_path: str = _flag("", "File that audit events are written to; - for standard output.")
    audit_log_format: str = _flag("json", "json or legacy.")
    audit_log_mode: str = _flag("blocking", "blocking, batch, or blocking-strict: refuse what cannot be audited.")
    audit_log_version: str = _flag("audit.k8s.io/v1", "The version that events are written in.")
    audit_log_batch_buffer_size: int = _flag(10_000, "How many events may wait in batch mode.")
    audit_log_batch_max_size: int = _flag(1, "How many events are written at once in batch mode.")
    audit_log_batch_max_wait_seconds: float = _flag(0.0, "How long events wait for others in batch mode.")
    audit_log_batch_throttle_enable: bool = _flag(False, "Whether batches are limited.")
    audit_log_batch_throttle_qps: float = _flag(0.0, "How many batches a second are written.")
    audit_log_batch_throttle_burst: int = _flag(0, "How many batches are written at a time.")
    audit_log_truncate_enabled: bool = _flag(False, "Whether large events lose their objects.")
    audit_log_truncate_max_event_size: int = _flag(102_400, "What is large, in bytes.")
    audit_log_truncate_max_batch_size: int = _flag(10_485_760, "How many bytes are written at once.")
    audit_log_maxage: int = _flag(366, "Days that old audit logs are kept; 0 for ever.")
    audit_log_maxbackup: int = _flag(100, "How many old audit logs are kept; 0 for all.")
    audit_log_maxsize: int = _flag(100, "Megabytes after which the audit log is turned over; 0 for never.")
    audit_log_compress: bool = _flag(False, "Whether old audit logs are compressed.")
    audit_webhook_config_file: str = _flag("", "Kubeconfig of a webhook that audit events are sent to.")
    audit_webhook_mode: str = _flag("batch", "batch, blocking, or blocking-strict.")
    audit_webhook_version: str = _flag("audit.k8s.io/v1", "The version that events are sent in.")
    audit_webhook_initial_backoff_seconds: float = _flag(10.0, "How long to wait after a failure.")
    audit_webhook_batch_buffer_size: int = _flag(10_000, "How many events may wait.")
    audit_webhook_batch_max_size: int = _flag(400, "How many events are sent at once.")
    audit_webhook_batch_max_wait_seconds: float = _flag(30.0, "How long events wait for others.")
    audit_webhook_batch_throttle_enable: bool = _flag(True, "Whether batches are limited.")
    audit_webhook_batch_throttle_qps: float = _flag(10.0, "How many batches a second are sent.")
    audit_webhook_batch_throttle_burst: int = _flag(15, "How many batches are sent at a time.")
    audit_webhook_truncate_enabled: bool = _flag(False, "Whether large events lose their objects.")
    audit_webhook_truncate_max_event_size: int = _flag(102_400, "What is large, in bytes.")
    audit_webhook_truncate_max_batch_size: int = _flag(10_485_760, "How many bytes are sent at once.")
    tracing_config_file: str = _flag("", "File with a TracingConfiguration: who is told of requests, and how many.")
    encryption_provider_config: str = _flag("", "File with an EncryptionConfiguration.")
    encryption_provider_config_automatic_reload: bool = _flag(False, "Whether that file is read again on change.")


@dataclass(frozen=True)
class Settings:
    """Settings of one API server; defaults are upstream's unless a reason is given."""

    host: str = "127.0.0.1"
    """The address to listen on. Loopback, because nothing listens beyond it unless the user joins machines."""
    port: int = 6443
    share_port: bool = False
    """Whether other processes of this machine listen on the same port; the kernel spreads connections over them."""
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
    runtime_config: tuple[str, ...] = ()
    """What to serve beyond or below that: api/beta=true, batch/v1=false, group/version/resource=true."""
    feature_gates: tuple[str, ...] = ()
    """Gates set otherwise than by default: ComponentFlagz=false."""
    enable_admission_plugins: tuple[str, ...] = ("NodeRestriction",)
    """Plugins beyond upstream's default ones. NodeRestriction is among them as every installer of clusters adds it."""
    disable_admission_plugins: tuple[str, ...] = ()
    admission_control_config_file: str = ""
    """File with an AdmissionConfiguration: what plugins are told."""
    default_not_ready_toleration_seconds: int = 300
    """How long Pods that say nothing stay on a node that is not ready."""
    default_unreachable_toleration_seconds: int = 300
    """The same for a node that cannot be reached."""
    show_hidden_metrics_for_version: str = ""
    """The previous minor version, to be shown the metrics that it still showed."""
    request_timeout_seconds: float = 60.0
    """How long a request may take, if its own limit is not shorter."""
    shutdown_delay_seconds: float = 0.0
    """How long the server goes on, saying that it is not ready, when it is told to end."""
    shutdown_watch_grace_seconds: float = 0.0
    """Over how long a time watches are ended then, so that their clients do not all come back at once."""
    cors_allowed_origins: tuple[str, ...] = ()
    """Regular expressions for the origins of scripts that may read answers."""
    strict_transport_security_directives: tuple[str, ...] = ()
    disabled_metrics: tuple[str, ...] = ()
    allow_metric_labels: tuple[str, ...] = ()
    """Values of labels that are shown, as metric,label=value; others are shown as unexpected."""
    profiling: bool = True
    """Whether profiles are served below /debug/pprof."""
    security: SecuritySettings = field(default_factory=SecuritySettings)
    serve_kubernetes_service: bool = True
    """Whether to keep the Service `kubernetes` and its endpoints in the namespace default."""
    aggregator_routing: bool = False
    """Whether webhooks and extension API servers behind Services are dialled at their endpoints, not at the cluster IP.
    It helps where kube-proxy does not run beside the API server, and Pods' addresses are reachable."""
