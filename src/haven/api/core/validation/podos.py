"""What is wrong with a Pod for the operating system it names, and with Windows host processes.

Source: https://kubernetes.io/docs/concepts/workloads/pods/#pod-os
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.containers import containers_of
from haven.api.core.validation.security import (
    WINDOWS_CONTAINER_FORBIDDEN,
    windows_forbidden,
)
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    forbidden,
    invalid,
    not_supported,
    required,
)

__all__ = ["validate_os", "validate_windows_host_process"]


def validate_windows_host_process(spec: v1.PodSpec, path: Path) -> ErrorList:
    context = spec.security_context
    of_pod = context.windows_options.host_process if context is not None and context.windows_options else None
    errors: ErrorList = []
    count = total = 0
    for container, place in containers_of(spec, path):
        total += 1
        own = container.security_context
        of_container = own.windows_options.host_process if own is not None and own.windows_options else None
        if of_pod is not None and of_container is not None and of_pod != of_container:
            shown = "true" if of_pod else "false"
            words = f"pod hostProcess value must be identical if both are specified, was {shown}"
            where = place.child("securityContext", "windowsOptions", "hostProcess")
            errors.append(invalid(where, of_container, words))
        count += bool(of_pod if of_container is None else of_container)
    if count:
        if count != total:
            words = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
            errors.append(invalid(path, "", words))
        if not spec.host_network:
            words = "hostNetwork must be true if pod contains any hostProcess containers"
            errors.append(invalid(path.child("hostNetwork"), False, words))
    return errors


def validate_os(spec: v1.PodSpec, os: v1.PodOS, path: Path) -> ErrorList:
    if not os.name:
        return [required(path.child("os").child("name"), "")]
    if os.name not in ("linux", "windows"):
        return [not_supported(path.child("os"), os.name, ("linux", "windows"))]
    if os.name == "windows":
        errors = windows_forbidden(spec, path)
        for container, place in containers_of(spec, path):
            for attribute, name in WINDOWS_CONTAINER_FORBIDDEN if container.security_context is not None else ():
                if getattr(container.security_context, attribute) is not None:
                    words = "cannot be set for a windows pod"
                    errors.append(forbidden(place.child("securityContext").child(name), words))
        return errors
    words = "windows options cannot be set for a linux pod"
    errors = []
    if spec.security_context is not None and spec.security_context.windows_options is not None:
        errors.append(forbidden(path.child("securityContext").child("windowsOptions"), words))
    for container, place in containers_of(spec, path):
        if container.security_context is not None and container.security_context.windows_options is not None:
            errors.append(forbidden(place.child("securityContext").child("windowsOptions"), words))
    return errors
