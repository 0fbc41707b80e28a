"""What is wrong with the name resolution that a Pod asks for.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-dns-config
"""

from __future__ import annotations

from haven.api.core import v1
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    invalid,
    required,
)
from haven.apimachinery.validation.addresses import validate_legacy_ip
from haven.apimachinery.validation.names import (
    byte_length,
    dns1123_subdomain_underscore_errors,
)

__all__ = ["validate_dns_config"]

_NAMESERVERS_MAX = 3
_SEARCHES_MAX = 32
_SEARCH_CHARS_MAX = 2048


def validate_dns_config(spec: v1.PodSpec, path: Path) -> ErrorList:
    config = spec.dns_config
    if spec.dns_policy == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.nameservers:
            words = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(path.child("nameservers"), words)]
    if config is None:
        return []
    errors: ErrorList = []
    if len(config.nameservers) > _NAMESERVERS_MAX:
        words = f"must not have more than {_NAMESERVERS_MAX} nameservers"
        errors.append(invalid(path.child("nameservers"), config.nameservers, words))
    for index, address in enumerate(config.nameservers):
        errors += validate_legacy_ip(address, path.child("nameservers").index(index))
    if len(config.searches) > _SEARCHES_MAX:
        words = f"must not have more than {_SEARCHES_MAX} search paths"
        errors.append(invalid(path.child("searches"), config.searches, words))
    if byte_length(" ".join(config.searches)) > _SEARCH_CHARS_MAX:
        words = f"must not have more than {_SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        errors.append(invalid(path.child("searches"), config.searches, words))
    for index, search in enumerate(config.searches):
        if search != ".":
            search = search.removesuffix(".")
            for text in dns1123_subdomain_underscore_errors(search):
                errors.append(invalid(path.child("searches").index(index), search, text))
    for index, option in enumerate(config.options):
        if not option.name:
            errors.append(required(path.child("options").index(index), "must not be empty"))
    return errors
