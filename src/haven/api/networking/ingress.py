"""Ingresses: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/services-networking/ingress/ and the behaviour of
pkg/apis/networking/validation.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core_v1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.givenempty import given
from haven.api.networking import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported, required
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.addresses import ip_warnings, parse_address, validate_legacy_ip
from haven.apimachinery.validation.names import (
    dns1123_label_errors,
    dns1123_subdomain_errors,
    path_segment_name,
    port_name_errors,
    port_number_errors,
    wildcard_dns1123_subdomain_errors,
)

__all__ = ["INGRESS"]

_SPEC = Path("spec")
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")


def _check(ingress: v1.Ingress, *, any_secret: bool = False, any_wildcard: bool = False) -> ErrorList:
    errors = validate_meta(ingress.metadata, namespaced=True)
    spec = ingress.spec
    if not spec.rules and spec.default_backend is None:
        errors.append(invalid(_SPEC, given(spec.rules), "either `defaultBackend` or `rules` must be specified"))
    if spec.default_backend is not None:
        errors += _backend(spec.default_backend, _SPEC.child("defaultBackend"))
    for index, rule in enumerate(spec.rules):
        errors += _rule(rule, _SPEC.child("rules").index(index), any_wildcard)
    for index, tls in enumerate(spec.tls):
        errors += _tls(tls, _SPEC.child("tls").index(index), any_secret)
    name = spec.ingress_class_name
    if name is not None:
        errors += [invalid(_SPEC.child("ingressClassName"), name, text) for text in dns1123_subdomain_errors(name)]
    return errors


def _tls(tls: v1.IngressTLS, path: Path, any_secret: bool) -> ErrorList:
    errors: ErrorList = []
    for index, host in enumerate(tls.hosts):
        check = wildcard_dns1123_subdomain_errors if "*" in host else dns1123_subdomain_errors
        errors += [invalid(path.child("hosts").index(index), host, text) for text in check(host)]
    if tls.secret_name and not any_secret:
        for text in dns1123_subdomain_errors(tls.secret_name):
            errors.append(invalid(path.child("secretName"), tls.secret_name, text))
    return errors


def _rule(rule: v1.IngressRule, path: Path, any_wildcard: bool) -> ErrorList:
    errors: ErrorList = []
    host, place = rule.host, path.child("host")
    is_wildcard = "*" in host
    if host:
        if parse_address(host) is not None:
            errors.append(invalid(place, host, "must be a DNS name, not an IP address"))
        check = wildcard_dns1123_subdomain_errors if is_wildcard else dns1123_subdomain_errors
        errors += [invalid(place, host, text) for text in check(host)]
    return errors if is_wildcard and any_wildcard else errors + _http(rule, path)


def _http(rule: v1.IngressRule, path: Path) -> ErrorList:
    if rule.http is None:
        return []
    errors: ErrorList = []
    paths = path.child("http").child("paths")
    if not rule.http.paths:
        errors.append(required(paths, ""))
    for index, item in enumerate(rule.http.paths or ()):
        errors += _http_path(item, paths.index(index))
    return errors


def _http_path(item: v1.HTTPIngressPath, path: Path) -> ErrorList:
    kind, text, place = item.path_type, item.path, path.child("path")
    if kind is None:
        return [required(path.child("pathType"), "pathType must be specified")]
    errors: ErrorList = []
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(invalid(place, text, "must be an absolute path"))
        errors += [invalid(place, text, f"must not contain '{bad}'") for bad in _BAD_SEQUENCES if bad in text]
        errors += [invalid(place, text, f"cannot end with '{bad}'") for bad in _BAD_ENDS if text.endswith(bad)]
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            errors.append(invalid(place, text, "must be an absolute path"))
    else:
        kinds = ("Exact", "ImplementationSpecific", "Prefix")
        errors.append(not_supported(path.child("pathType"), kind, kinds))
    return errors + _backend(item.backend, path.child("backend"))


def _backend(backend: v1.IngressBackend, path: Path) -> ErrorList:
    resource, service = backend.resource, backend.service
    if resource is not None and service is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(resource, path.child("resource"))
    if service is None:
        return [invalid(path, "", "resource or service backend is required")]
    errors: ErrorList = []
    place = path.child("service", "name")
    if not service.name:
        errors.append(required(place, ""))
    else:
        errors += [invalid(place, service.name, text) for text in dns1123_label_errors(service.name)]
    name, number = service.port.name, service.port.number
    if name and number:
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif name:
        errors += [invalid(path.child("service", "port", "name"), name, text) for text in port_name_errors(name)]
    elif number:
        place = path.child("service", "port", "number")
        errors += [invalid(place, number, text) for text in port_number_errors(number)]
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


def _reference(reference: core_v1.TypedLocalObjectReference, path: Path) -> ErrorList:
    errors: ErrorList = []
    group = reference.api_group
    if group is not None:
        errors += [invalid(path.child("apiGroup"), group, text) for text in dns1123_subdomain_errors(group)]
    for name, value in (("kind", reference.kind), ("name", reference.name)):
        if not value:
            errors.append(required(path.child(name), ""))
        else:
            errors += [invalid(path.child(name), value, text) for text in path_segment_name(value)]
    return errors


def _validate(ingress: v1.Ingress) -> ErrorList:
    errors = _check(ingress)
    annotation = ingress.metadata.annotations.get(_CLASS_ANNOTATION)
    name = ingress.spec.ingress_class_name
    if annotation is not None and name is not None and annotation != name:
        words = "must match `ingressClassName` when both are specified"
        errors.append(invalid(Path("annotations").child(_CLASS_ANNOTATION), annotation, words))
    return errors


def _validate_update(new: v1.Ingress, old: v1.Ingress) -> ErrorList:
    any_secret = any(dns1123_subdomain_errors(tls.secret_name) for tls in old.spec.tls if tls.secret_name)
    any_wildcard = any("*" in rule.host and _http(rule, Path("")) for rule in old.spec.rules)
    errors = validate_meta_update(new.metadata, old.metadata)
    return errors + _check(new, any_secret=any_secret, any_wildcard=any_wildcard)


def _validate_status_update(new: v1.Ingress, old: v1.Ingress) -> ErrorList:
    errors = validate_meta_update(new.metadata, old.metadata)
    known = {item.ip for item in old.status.load_balancer.ingress if item.ip}
    for index, item in enumerate(new.status.load_balancer.ingress):
        place = Path("status", "loadBalancer", "ingress").index(index)
        if item.ip:
            errors += validate_legacy_ip(item.ip, place.child("ip"), valid_old=known)
        if item.hostname:
            where = place.child("hostname")
            errors += [invalid(where, item.hostname, text) for text in dns1123_subdomain_errors(item.hostname)]
            if parse_address(item.hostname) is not None:
                errors.append(invalid(where, item.hostname, "must be a DNS name, not an IP address"))
    return errors


def _create(new: v1.Ingress) -> None:
    new.status = v1.IngressStatus()
    new.metadata.generation = 1


def _update(new: v1.Ingress, old: v1.Ingress) -> None:
    new.status = old.status
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _update_status(new: v1.Ingress, old: v1.Ingress) -> None:
    new.spec = old.spec


def _warnings(new: v1.Ingress, old: v1.Ingress | None) -> list[str]:
    if old is None and _CLASS_ANNOTATION in new.metadata.annotations and new.spec.ingress_class_name is None:
        return [f"annotation {quote(_CLASS_ANNOTATION)} is deprecated, please use 'spec.ingressClassName' instead"]
    return []


def _status_warnings(new: v1.Ingress, _old: v1.Ingress | None) -> list[str]:
    warnings: list[str] = []
    for index, item in enumerate(new.status.load_balancer.ingress):
        if item.ip:
            warnings += ip_warnings(Path("status", "loadBalancer", "ingress").index(index), item.ip)
    return warnings


INGRESS: Strategy[Any] = Strategy(
    prepare_for_create=_create,
    validate=_validate,
    prepare_for_update=_update,
    validate_update=_validate_update,
    warnings=_warnings,
    name_errors=lambda name: list(dns1123_subdomain_errors(name)),
    has_generation=True,
    subresources={
        "status": Strategy(
            prepare_for_update=_update_status, validate_update=_validate_status_update, warnings=_status_warnings
        )
    },
)
