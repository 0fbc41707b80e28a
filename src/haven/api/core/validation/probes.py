"""What is wrong with probes and lifecycle hooks.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/ and the
behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.names import http_header_name_errors, port_name_errors, port_number_errors
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = [
    "validate_lifecycle",
    "validate_liveness_probe",
    "validate_port_or_name",
    "validate_readiness_probe",
    "validate_startup_probe",
]

_LINUX_SIGNALS = tuple(
    sorted(
        [
            "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT",
            "SIGIO", "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV",
            "SIGSTKFLT", "SIGSTOP", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG",
            "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", "SIGRTMAX",
            *(f"SIGRTMIN+{number}" for number in range(1, 16)),
            *(f"SIGRTMAX-{number}" for number in range(1, 15)),
        ]
    )
)  # fmt: skip


def validate_port_or_name(port: int | str, path: Path) -> ErrorList:
    """Check a port given by number or by name."""
    texts = port_number_errors(port) if isinstance(port, int) else port_name_errors(port)
    return [invalid(path, port, text) for text in texts]


def validate_liveness_probe(probe: v1.Probe, grace: int | None, path: Path) -> ErrorList:
    """Check a liveness probe: one success is enough."""
    errors = _probe(probe, grace, path)
    if probe.success_threshold != 1:
        errors.append(invalid(path.child("successThreshold"), probe.success_threshold, "must be 1"))
    return errors


validate_startup_probe = validate_liveness_probe


def validate_readiness_probe(probe: v1.Probe, grace: int | None, path: Path) -> ErrorList:
    """Check a readiness probe: it ends nothing, so it has no grace period."""
    errors = _probe(probe, grace, path)
    if probe.termination_grace_period_seconds is not None:
        place = path.child("terminationGracePeriodSeconds")
        words = "must not be set for readinessProbes"
        errors.append(invalid(place, probe.termination_grace_period_seconds, words))
    return errors


def _probe(probe: v1.Probe, grace: int | None, path: Path) -> ErrorList:
    errors = _handler(probe, grace, path)
    errors += validate_not_negative(probe.initial_delay_seconds, path.child("initialDelaySeconds"))
    errors += validate_not_negative(probe.timeout_seconds, path.child("timeoutSeconds"))
    errors += validate_not_negative(probe.period_seconds, path.child("periodSeconds"))
    errors += validate_not_negative(probe.success_threshold, path.child("successThreshold"))
    errors += validate_not_negative(probe.failure_threshold, path.child("failureThreshold"))
    own = probe.termination_grace_period_seconds
    if own is not None and own <= 0:
        errors.append(invalid(path.child("terminationGracePeriodSeconds"), own, "must be greater than 0"))
    return errors


def _handler(handler: v1.ProbeHandler | v1.LifecycleHandler, grace: int | None, path: Path) -> ErrorList:
    errors: ErrorList = []
    grpc = handler.grpc if isinstance(handler, v1.ProbeHandler) else None
    sleep = handler.sleep if isinstance(handler, v1.LifecycleHandler) else None
    given = [
        ("exec", handler.exec), ("httpGet", handler.http_get), ("tcpSocket", handler.tcp_socket), ("grpc", grpc),
        ("sleep", sleep),
    ]  # fmt: skip
    found = [(name, action) for name, action in given if action is not None]
    if not found:
        return [required(path, "must specify a handler type")]
    for index, (name, action) in enumerate(found):
        place = path.child(name)
        if index:
            errors.append(forbidden(place, "may not specify more than 1 handler type"))
        elif isinstance(action, v1.ExecAction):
            if not action.command:
                errors.append(required(place.child("command"), ""))
        elif isinstance(action, v1.HTTPGetAction):
            errors += _http_get(action, place)
        elif isinstance(action, v1.SleepAction):
            if grace is not None and not 0 <= action.seconds <= grace:
                words = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                errors.append(invalid(place, action.seconds, words))
        else:
            errors += validate_port_or_name(action.port, place.child("port"))
    return errors


def _http_get(action: v1.HTTPGetAction, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not action.path:
        errors.append(required(path.child("path"), ""))
    errors += validate_port_or_name(action.port, path.child("port"))
    if action.scheme not in ("HTTP", "HTTPS"):
        errors.append(not_supported(path.child("scheme"), action.scheme, ("HTTP", "HTTPS")))
    for header in action.http_headers:
        for text in http_header_name_errors(header.name):
            errors.append(invalid(path.child("httpHeaders"), header.name, text))
    return errors


def validate_lifecycle(lifecycle: v1.Lifecycle, grace: int | None, path: Path, os: v1.PodOS | None) -> ErrorList:
    """Check what runs after the start and before the stop of a container."""
    errors: ErrorList = []
    if lifecycle.post_start is not None:
        errors += _handler(lifecycle.post_start, grace, path.child("postStart"))
    if lifecycle.pre_stop is not None:
        errors += _handler(lifecycle.pre_stop, grace, path.child("preStop"))
    if lifecycle.stop_signal is not None:
        errors += _stop_signal(lifecycle.stop_signal, path.child("stopSignal"), os)
    return errors


def _stop_signal(signal: str, path: Path, os: v1.PodOS | None) -> ErrorList:
    if os is None:
        return [forbidden(path, "may not be set for containers with empty `spec.os.name`")]
    supported = {"windows": ("SIGKILL", "SIGTERM"), "linux": _LINUX_SIGNALS}.get(os.name)
    if supported is not None and signal not in supported:
        return [not_supported(path, signal, supported)]
    return []
