"""Environments, expansion, fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spec.kubelet.pods import a_container, a_pod

from haven.api.core.v1 import (
    ConfigMap,
    ConfigMapEnvSource,
    ConfigMapKeySelector,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    ObjectFieldSelector,
    ResourceFieldSelector,
    ResourceRequirements,
    Secret,
    SecretKeySelector,
    Service,
    ServicePort,
    ServiceSpec,
)
from haven.apimachinery import meta
from haven.apimachinery.quantity import Quantity
from haven.kubelet.env import ConfigError, EnvSources, environment, parse_env_file
from haven.kubelet.expansion import MissingVariable, expand, expand_strictly
from haven.kubelet.fieldref import FieldError, FieldFacts, field_value, resource_value


def a_service(name: str, namespace: str = "default", ip: str = "10.96.0.9") -> Service:
    return Service(
        metadata=meta.ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(cluster_ip=ip, ports=[ServicePort(name="http", port=80, protocol="TCP")]),
    )


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)", "x"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("a$(A)b$(A)", "axbx"), ("$", "$"), ("$(A", "$(A"),
     ("$$$(A)", "$x"), ("$A", "$A"), ("$(B)", "$(A)")],
)  # fmt: skip
def test_references_are_replaced_and_unknown_ones_stay(text: str, result: str) -> None:
    assert expand(text, {"A": "x", "B": "$(A)"}) == result


@given(st.text(alphabet="ab()x"))
def test_text_without_a_dollar_is_never_changed(text: str) -> None:
    assert expand(text, {"a": "1"}) == text


def test_a_subpath_must_know_all_its_variables() -> None:
    assert expand_strictly("logs/$(POD)", {"POD": "web"}) == "logs/web"
    with pytest.raises(MissingVariable):
        expand_strictly("$(POD)", {})


def test_later_variables_see_earlier_ones_and_own_ones_win_over_services() -> None:
    container = a_container(
        env=[EnvVar(name="A", value="1"), EnvVar(name="B", value="$(A)$(WEB_SERVICE_HOST)"),
             EnvVar(name="WEB_PORT", value="mine")],
    )  # fmt: skip

    result = environment(a_pod(container), container, EnvSources(services=[a_service("web")]))

    assert result["B"] == "110.96.0.9"
    assert result["WEB_PORT"] == "mine"
    assert result["WEB_PORT_80_TCP_ADDR"] == "10.96.0.9"
    assert result["WEB_SERVICE_PORT_HTTP"] == "80"


def test_only_the_api_server_is_known_without_service_links() -> None:
    pod = a_pod(enable_service_links=False)

    services = [a_service("kubernetes"), a_service("web"), a_service("far", "other")]
    result = environment(pod, pod.spec.containers[0], EnvSources(services=services))

    assert set(result) >= {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}
    assert not any(name.startswith(("WEB", "FAR")) for name in result)


def test_a_missing_object_or_key_is_an_error_unless_optional() -> None:
    def variable(source: EnvVarSource) -> EnvSources:
        container.env = [EnvVar(name="X", value_from=source)]
        return EnvSources(config_maps={"there": ConfigMap(data={"a": "1"})}, secrets={})

    container = a_container()
    pod = a_pod(container)
    with pytest.raises(ConfigError, match='secret "no" not found'):
        environment(pod, container, variable(EnvVarSource(secret_key_ref=SecretKeySelector(name="no", key="k"))))
    with pytest.raises(ConfigError, match="couldn't find key b in ConfigMap default/there"):
        environment(
            pod, container, variable(EnvVarSource(config_map_key_ref=ConfigMapKeySelector(name="there", key="b")))
        )
    sources = variable(EnvVarSource(secret_key_ref=SecretKeySelector(name="no", key="k", optional=True)))
    assert "X" not in environment(pod, container, sources)


def test_whole_config_maps_come_in_with_a_prefix() -> None:
    container = a_container(env_from=[EnvFromSource(prefix="P_", config_map_ref=ConfigMapEnvSource(name="c"))])

    result = environment(a_pod(container), container, EnvSources(config_maps={"c": ConfigMap(data={"a-b": "1"})}))

    assert result == {"P_a-b": "1"}


def test_secrets_are_text() -> None:
    container = a_container(
        env=[EnvVar(name="X", value_from=EnvVarSource(secret_key_ref=SecretKeySelector(name="s", key="k")))]
    )

    assert (
        environment(a_pod(container), container, EnvSources(secrets={"s": Secret(data={"k": b"hush"})}))["X"] == "hush"
    )


def test_env_files_are_a_strict_part_of_shell() -> None:
    text = "# c\nA='one' # note\n\nB='two\nlines'\nC= 'empty'\nA='later'\n"

    assert parse_env_file(text) == {"A": "one", "B": "two\nlines", "C": ""}
    for bad in ("A=plain", "no equals", "A ='x'", "A='x' y"):
        with pytest.raises(ConfigError):
            parse_env_file(bad)


def test_fields_of_the_pod_are_text() -> None:
    pod = a_pod()
    pod.metadata.labels = {"b": "2", "a": 'q"'}
    facts = FieldFacts(("10.0.0.1", "fd00::1"), ("192.0.2.1",))

    assert field_value("metadata.labels", pod, facts) == 'a="q\\""\nb="2"'
    assert field_value("metadata.labels['b']", pod, facts) == "2"
    assert field_value("status.podIPs", pod, facts) == "10.0.0.1,fd00::1"
    with pytest.raises(FieldError, match="unsupported fieldPath"):
        field_value("spec.nope", pod, facts)


def test_resources_round_up_to_the_divisor_and_missing_limits_are_the_nodes() -> None:
    container = a_container(resources=ResourceRequirements(requests={"cpu": Quantity.parse("1250m")}))
    facts = FieldFacts(allocatable={"memory": Quantity.parse("3Gi")})

    def value(resource: str, divisor: str = "0") -> str:
        selector = ResourceFieldSelector(resource=resource, divisor=Quantity.parse(divisor))
        return resource_value(selector, a_pod(container), container, facts)

    assert value("requests.cpu") == "2"
    assert value("requests.cpu", "1m") == "1250"
    assert value("limits.memory", "1Mi") == "3072"


def test_a_field_reference_becomes_a_variable() -> None:
    container = a_container(
        env=[EnvVar(name="N", value_from=EnvVarSource(field_ref=ObjectFieldSelector(field_path="metadata.name")))]
    )

    assert environment(a_pod(container), container, EnvSources())["N"] == "web"
