"""The environment of a container: services, config maps, secrets, files, fields of the pod, and plain values.

Pure: whoever calls has fetched the objects. Later sources override earlier ones, as upstream orders them.
Source: https://kubernetes.io/docs/tasks/inject-data-application/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.core.v1 import ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service
from haven.kubelet.expansion import expand
from haven.kubelet.fieldref import FieldFacts, field_value, resource_value

__all__ = ["ConfigError", "EnvSources", "environment", "parse_env_file", "referenced_objects", "service_variables"]


class ConfigError(Exception):
    """The container cannot be configured as its spec says; the message goes into its status."""


@dataclass(frozen=True, slots=True)
class EnvSources:
    """What the environment is made of. An object that does not exist is missing from its mapping."""

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    services: Sequence[Service] = ()
    facts: FieldFacts = FieldFacts()
    read_file: Callable[[FileKeySelector], str | None] | None = None
    """Returns the text of a file in a volume of the pod, None if there is none."""


def referenced_objects(container: Container) -> tuple[set[str], set[str]]:
    """Return the names of the config maps and of the secrets that a container's environment needs."""
    config_maps = {source.config_map_ref.name for source in container.env_from if source.config_map_ref}
    secrets = {source.secret_ref.name for source in container.env_from if source.secret_ref}
    for variable in container.env:
        if variable.value_from and variable.value_from.config_map_key_ref:
            config_maps.add(variable.value_from.config_map_key_ref.name)
        if variable.value_from and variable.value_from.secret_key_ref:
            secrets.add(variable.value_from.secret_key_ref.name)
    return config_maps, secrets


def environment(pod: Pod, container: Container, sources: EnvSources) -> dict[str, str]:
    """Return the variables; raise ConfigError or fieldref.FieldError."""
    services = service_variables(pod, sources.services)
    own: dict[str, str] = {}
    for source in container.env_from:
        own.update(_all_of(source.prefix, _data_of_source(source, sources)))
    for variable in container.env:
        if variable.value or variable.value_from is None:
            own[variable.name] = expand(variable.value, own, services)
            continue
        value = _value(pod, container, variable.value_from, sources)
        if value is not None:
            own[variable.name] = value
    return {**services, **own}


def _all_of(prefix: str, data: Mapping[str, str]) -> dict[str, str]:
    return {prefix + key: value for key, value in data.items()}


def _data_of_source(source: object, sources: EnvSources) -> Mapping[str, str]:
    config_map_ref = getattr(source, "config_map_ref", None)
    if config_map_ref is not None:
        config_map = sources.config_maps.get(config_map_ref.name)
        if config_map is not None:
            return config_map.data
        if config_map_ref.optional:
            return {}
        raise ConfigError(f'configmap "{config_map_ref.name}" not found')
    secret_ref = getattr(source, "secret_ref", None)
    if secret_ref is not None:
        secret = sources.secrets.get(secret_ref.name)
        if secret is not None:
            return {key: value.decode(errors="replace") for key, value in secret.data.items()}
        if secret_ref.optional:
            return {}
        raise ConfigError(f'secret "{secret_ref.name}" not found')
    return {}


def _value(pod: Pod, container: Container, source: EnvVarSource, sources: EnvSources) -> str | None:
    """Return the value of a variable, None if its optional source is missing."""
    if source.field_ref is not None:
        return field_value(source.field_ref.field_path, pod, sources.facts)
    if source.resource_field_ref is not None:
        return resource_value(source.resource_field_ref, pod, container, sources.facts)
    namespace = pod.metadata.namespace
    if (reference := source.config_map_key_ref) is not None:
        config_map = sources.config_maps.get(reference.name)
        if config_map is not None and reference.key in config_map.data:
            return config_map.data[reference.key]
        if reference.optional:
            return None
        if config_map is None:
            raise ConfigError(f'configmap "{reference.name}" not found')
        raise ConfigError(f"couldn't find key {reference.key} in ConfigMap {namespace}/{reference.name}")
    if (secret_key := source.secret_key_ref) is not None:
        secret = sources.secrets.get(secret_key.name)
        if secret is not None and secret_key.key in secret.data:
            return secret.data[secret_key.key].decode(errors="replace")
        if secret_key.optional:
            return None
        if secret is None:
            raise ConfigError(f'secret "{secret_key.name}" not found')
        raise ConfigError(f"couldn't find key {secret_key.key} in Secret {namespace}/{secret_key.name}")
    if (file_key := source.file_key_ref) is not None:
        text = sources.read_file(file_key) if sources.read_file is not None else None
        found = parse_env_file(text).get(file_key.key) if text is not None else None
        if found or file_key.optional:
            return found or None
        raise ConfigError(f'environment variable key "{file_key.key}" not found in file "{file_key.path}"')
    return ""


_ENV_LINE = re.compile(
    r"[ \t]*(?:#[^\n]*|(?P<name>[^\s=#][^\s=]*)=(?P<rest>'(?P<value>[^']*)'[ \t]*(?:#[^\n]*)?|[ \t][^\n]*|))?(?:\n|\Z)"
)


def parse_env_file(text: str) -> dict[str, str]:
    """Return the variables of an env file; raise ConfigError.

    The syntax is a strict part of a shell's: NAME='value', over several lines if need be; comments; a blank after the
    equals sign makes the value empty.
    """
    result: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ENV_LINE.match(text, position)
        if match is None:
            raise ConfigError("couldn't parse env file")
        if match["name"]:
            result.setdefault(match["name"], match["value"] or "")
        position = match.end()
    return result


def service_variables(pod: Pod, services: Sequence[Service]) -> dict[str, str]:
    """Return the variables of services that have a cluster address: those of the pod's namespace, if it wants them,
    and always the API server's."""
    chosen: dict[str, Service] = {}
    for service in services:
        metadata = service.metadata
        if service.spec.cluster_ip in ("", "None") or not service.spec.ports:
            continue
        is_api_server = metadata.namespace == "default" and metadata.name == "kubernetes"
        if is_api_server:
            chosen.setdefault(metadata.name, service)
        elif metadata.namespace == pod.metadata.namespace and pod.spec.enable_service_links is not False:
            chosen[metadata.name] = service
    result: dict[str, str] = {}
    for service in chosen.values():
        result.update(_variables_of(service))
    return result


def _variables_of(service: Service) -> dict[str, str]:
    prefix = _variable_name(service.metadata.name)
    address = service.spec.cluster_ip
    bracketed = f"[{address}]" if ":" in address else address
    first = service.spec.ports[0]
    result = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first.port)}
    for port in service.spec.ports:
        if port.name:
            result[f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}"] = str(port.port)
    for port in service.spec.ports:
        protocol = (port.protocol or "TCP").lower()
        url = f"{protocol}://{bracketed}:{port.port}"
        if port is first:
            result[f"{prefix}_PORT"] = url
        port_prefix = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        result[port_prefix] = url
        result[f"{port_prefix}_PROTO"] = protocol
        result[f"{port_prefix}_PORT"] = str(port.port)
        result[f"{port_prefix}_ADDR"] = address
    return result


def _variable_name(text: str) -> str:
    return text.replace("-", "_").upper()
