"""Answers of core kinds that were measured against the real API server: codes, messages, warnings."""

from __future__ import annotations

import json
from typing import Any

import pytest

CORE = "/api/v1/namespaces/default"
MERGE = "application/merge-patch+json"


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}


@pytest.fixture
async def account(api: Any) -> None:
    status, _ = await api.send("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "default"}})
    assert status == 201


async def test_a_limit_range_without_a_name_gets_a_random_one(api: Any) -> None:
    status, made = await api.send("POST", f"{CORE}/limitranges", {"metadata": {}})

    assert status == 201
    assert len(made["metadata"]["name"]) == 36


async def test_internal_traffic_policy_is_not_shown_for_a_name_elsewhere(api: Any) -> None:
    spec = {"type": "ExternalName", "externalName": "a.b", "internalTrafficPolicy": "Local"}

    _, made = await api.send("POST", f"{CORE}/services", {"metadata": {"name": "s"}, "spec": spec})

    assert "internalTrafficPolicy" not in made["spec"]


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        (
            {"clusterIP": "abc", "ports": []},
            422,
            'spec.clusterIPs[0]: Invalid value: "abc": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        ),
        (
            {"clusterIPs": ["10.96.0.9"], "ports": [{"port": 0}]},
            422,
            'spec.clusterIPs: Invalid value: ["10.96.0.9"]: must be empty when `clusterIP` is not specified',
        ),
        ({"ipFamilies": ["x"]}, 422, 'spec.ipFamilies[0]: Unsupported value: "x": supported values: "IPv4", "IPv6"'),
    ],
)
async def test_addresses_of_a_service_are_judged_before_anything_else(
    api: Any, spec: dict[str, Any], code: int, said: str
) -> None:
    status, answer = await api.send("POST", f"{CORE}/services", {"metadata": {"name": "s"}, "spec": spec})

    assert (status, answer["message"]) == (code, f'Service "s" is invalid: {said}')


async def test_a_dry_run_of_a_service_does_not_look_whether_its_address_is_taken(api: Any) -> None:
    spec = {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}
    assert (await api.send("POST", f"{CORE}/services", {"metadata": {"name": "a"}, "spec": spec}))[0] == 201

    status, _ = await api.send("POST", f"{CORE}/services?dryRun=All", {"metadata": {"name": "b"}, "spec": spec})

    assert status == 201


async def test_a_dry_run_shows_made_up_node_ports(api: Any) -> None:
    spec = {"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}

    _, shown = await api.send("POST", f"{CORE}/services?dryRun=All", {"metadata": {"name": "b"}, "spec": spec})

    assert [port["nodePort"] for port in shown["spec"]["ports"]] == [32769, 32770]


async def test_a_volume_whose_phase_changes_notes_when(api: Any) -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    volumes = "/api/v1/persistentvolumes"
    await api.send("POST", volumes, {"metadata": {"name": "v"}, "spec": spec})
    body = {"metadata": {"name": "v"}, "spec": spec, "status": {"phase": "Bound"}}

    _, answer = await api.send("PUT", f"{volumes}/v/status", body)

    assert answer["status"]["lastPhaseTransitionTime"]


@pytest.mark.parametrize(
    ("capacity", "shown"),
    [({}, "{}"), (None, "null")],
)
async def test_an_empty_capacity_is_shown_as_it_was_given(api: Any, capacity: Any, shown: str) -> None:
    body = {"metadata": {"name": "v"}, "spec": {"capacity": capacity, "accessModes": ["ReadWriteOnce"]}}

    _, answer = await api.send("POST", "/api/v1/persistentvolumes", body)

    assert f"spec.capacity: Unsupported value: {shown}: supported values" in answer["message"]


async def test_a_claim_from_another_namespace_is_made_without_a_source(api: Any) -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "s", "namespace": "other"}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "dataSourceRef": source}

    _, made = await api.send("POST", f"{CORE}/persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})

    assert not {"dataSource", "dataSourceRef"} & set(made["spec"])


async def test_templates_keep_ports_of_the_host_network_as_they_are(api: Any) -> None:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": True, "containers": [container]}}
    body = {"metadata": {"name": "r"}, "spec": {"template": template}}

    _, made = await api.send("POST", f"{CORE}/replicationcontrollers?dryRun=All", body)

    assert "hostPort" not in made["spec"]["template"]["spec"]["containers"][0]["ports"][0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"metadata": {"uid": "x"}}, "Key: /registry/controllers/default/r, ResourceVersion: 0"),
        ({"apiVersion": "extensions/v1beta1", "kind": "ReplicationController"}, "no kind"),
    ],
)
async def test_replication_controllers_have_a_key_of_another_name(api: Any, body: dict[str, Any], said: str) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    made = {"metadata": {"name": "r"}, "spec": {"template": template}}
    await api.send("POST", f"{CORE}/replicationcontrollers", made)
    changed = {**made, **body, "metadata": {"name": "r", **body.get("metadata", {})}}

    _, answer = await api.send("PUT", f"{CORE}/replicationcontrollers/r", changed)

    assert said in answer["message"]


async def test_a_body_of_a_retired_version_is_of_the_wrong_version(api: Any) -> None:
    body = {"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d"}}

    status, answer = await api.send("POST", "/apis/apps/v1/namespaces/default/deployments", body)

    expected = "the API version in the data (extensions/v1beta1) does not match the expected API version (apps/v1)"
    assert (status, answer["message"]) == (400, expected)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("log?sinceTime=abc", 400, 'parsing time "abc" as "2006-01-02T15:04:05Z07:00": cannot parse "abc" as "2006"'),
        ("log?stream=Stdout", 422, 'PodLogOptions "a" is invalid: stream: Forbidden: may not be specified'),
        (
            "log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            'PodLogOptions "a" is invalid: []: Forbidden: '
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("exec", 400, "pod a does not have a host assigned"),
        (
            "portforward?ports=abc",
            400,
            'cannot convert to []int32: strconv.ParseUint: parsing "abc": invalid syntax',
        ),
    ],
)
async def test_options_of_streams_are_judged_in_upstreams_order(api: Any, path: str, code: int, said: str) -> None:
    await api.send("POST", f"{CORE}/pods", a_pod("a"))

    status, answer = await api.send("GET", f"{CORE}/pods/a/{path}")

    assert (status, answer["message"]) == (code, said)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ({"runtimeClassName": ""}, 500, "resource name may not be empty"),
        ({"runtimeClassName": "a/b"}, 500, "invalid resource name \"a/b\": [may not contain '/']"),
        (
            {"serviceAccountName": "a/b"},
            403,
            'pods "a" is forbidden: error looking up service account default/a/b: '
            "invalid resource name \"a/b\": [may not contain '/']",
        ),
    ],
)
async def test_impossible_names_are_not_looked_up(api: Any, spec: dict[str, Any], code: int, said: str) -> None:
    status, answer = await api.send("POST", f"{CORE}/pods", a_pod("a", **spec))

    assert (status, answer["message"]) == (code, said)


@pytest.mark.usefixtures("account")
async def test_memory_and_cpu_of_an_init_container_can_be_resized(api: Any) -> None:
    init = {"name": "i", "image": "x", "resources": {"limits": {"cpu": "1"}}}
    await api.send("POST", f"{CORE}/pods", a_pod("a", initContainers=[init]))
    change = {"spec": {"initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2"}}}]}}

    status, answer = await api.send(
        "PATCH", f"{CORE}/pods/a/resize", change, content_type="application/strategic-merge-patch+json"
    )

    assert status == 200
    assert answer["spec"]["initContainers"][0]["resources"]["limits"] == {"cpu": "2"}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (
            "secrets",
            {"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": "", "tls.key": ""}},
            "tls: failed to find any PEM data in certificate input",
        ),
        (
            "services",
            {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["1.2.3.4"]}},
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
    ],
)
async def test_clients_are_warned(api: Any, path: str, body: dict[str, Any], said: str) -> None:
    answer = await api.raw("POST", f"{CORE}/{path}", body)

    shown = answer.headers.get("Warning") or answer.headers["warning"]
    assert json.dumps(said)[1:-1] in shown


async def test_a_job_without_labels_gets_those_of_its_pods_and_their_own_marks(api: Any) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    spec = {"template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}

    _, made = await api.send(
        "POST", "/apis/batch/v1/namespaces/default/jobs", {"metadata": {"name": "j"}, "spec": spec}
    )

    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"


async def test_an_autoscaler_of_the_old_version_keeps_its_cpu_in_the_annotation_too(api: Any) -> None:
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 3}
    await api.send("POST", path, {"metadata": {"name": "h"}, "spec": spec})

    _, shown = await api.send(
        "PATCH", f"{path}/h/status", {"status": {"currentCPUUtilizationPercentage": 30}}, content_type=MERGE
    )

    assert shown["status"]["currentCPUUtilizationPercentage"] == 30
    assert json.loads(shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/current-metrics"]) == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "currentAverageUtilization": 30, "currentAverageValue": "0"},
        }
    ]


async def test_the_metadata_of_a_daemon_set_alone_does_not_count_templates(api: Any) -> None:
    path = "/apis/apps/v1/namespaces/default/daemonsets"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    body = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    _, made = await api.send("POST", path, body)
    assert made["metadata"]["annotations"] == {"deprecated.daemonset.template.generation": "1"}

    _, table = await api.send("GET", path, accept="application/json;as=Table;g=meta.k8s.io;v=v1")

    assert "annotations" not in table["rows"][0]["object"]["metadata"]


@pytest.mark.parametrize(("query", "warned"), [("", True), ("?propagationPolicy=Background", False)])
async def test_who_deletes_a_job_and_not_its_pods_is_warned(api: Any, query: str, warned: bool) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    path = "/apis/batch/v1/namespaces/default/jobs"
    await api.send("POST", path, {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod}}})

    answer = await api.raw("DELETE", f"{path}/j{query}")

    assert ("child pods are preserved by default" in answer.headers.get("Warning", "")) is warned


async def test_claim_templates_that_ask_for_parts_of_a_byte_are_warned_of(api: Any) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1.5"}}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": template,
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": claim}],
    }
    path = "/apis/apps/v1/namespaces/default/statefulsets"

    answer = await api.raw("POST", path, {"metadata": {"name": "s"}, "spec": spec})

    assert "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte" in answer.headers["Warning"]


async def test_two_bad_networks_of_a_node_are_of_no_family(api: Any) -> None:
    _, answer = await api.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}, "spec": {"podCIDRs": ["a", "b"]}})

    fields = [(cause["field"], cause["reason"]) for cause in answer["details"]["causes"]]
    assert fields[2:] == [("spec.podCIDRs", "InternalError"), ("spec.podCIDRs", "FieldValueInvalid")]


@pytest.mark.usefixtures("account")
async def test_an_empty_lifecycle_stays_as_it_was_given(api: Any) -> None:
    container = {"name": "c", "image": "x", "lifecycle": {}}

    _, made = await api.send("POST", f"{CORE}/pods", a_pod("a", containers=[container]))

    assert made["spec"]["containers"][0]["lifecycle"] == {}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"activeDeadlineSeconds": 2147483648}, ["spec.activeDeadlineSeconds"] * 2),
        ({"activeDeadlineSeconds": 9}, ["spec.activeDeadlineSeconds"]),
    ],
)
async def test_a_bad_new_deadline_of_a_pod_ends_the_examination(
    api: Any, spec: dict[str, Any], fields: list[str]
) -> None:
    await api.send("POST", f"{CORE}/pods", a_pod("a", activeDeadlineSeconds=5))

    _, answer = await api.send("PATCH", f"{CORE}/pods/a", {"spec": spec | {"hostname": "h"}}, content_type=MERGE)

    assert [cause["field"] for cause in answer["details"]["causes"]] == fields


@pytest.mark.parametrize(("query", "shown"), [("?dryRun=All", "x"), ("", None)])
async def test_a_self_link_is_never_stored(api: Any, query: str, shown: str | None) -> None:
    await api.config_map("m")

    _, answer = await api.send("PUT", f"{CORE}/configmaps/m{query}", {"metadata": {"name": "m", "selfLink": "x"}})

    assert answer["metadata"].get("selfLink") == shown
