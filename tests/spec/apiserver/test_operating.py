"""What operators switch and look at: versions, gates, plugins, metrics, pages."""

from __future__ import annotations

import pytest
from tests.spec.apiserver.conftest import Api

from haven.api import scheme
from haven.apiserver.admission.plugins import DEFAULT
from haven.apiserver.featuregates import GateError, set_gates
from haven.apiserver.flags import with_flags
from haven.apiserver.runtimeconfig import RuntimeConfigError, served_versions
from haven.apiserver.settings import Settings
from haven.store.interface import StoreError


def served(*config: str) -> set[str]:
    return {f"{one.api_version}/{one.plural}" for one in served_versions(scheme.table().values(), config)}


def test_stable_versions_are_served_and_others_are_not() -> None:
    assert "apps/v1/deployments" in served()
    assert not {name for name in served() if "beta" in name or "alpha" in name}


def test_the_more_specific_setting_wins() -> None:
    only = served("api/all=false", "api/v1=true", "apps/v1/deployments=true")

    assert "apps/v1/deployments" in only
    assert "apps/v1/daemonsets" not in only
    assert "v1/pods" in only
    assert any("beta" in name for name in served("api/beta=true"))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("nothing/v1=true", "unknown api groups nothing/v1"),
        ("api/v1=perhaps", "invalid value of api/v1: perhaps, err: strconv.ParseBool"),
        ("api/all=maybe", "invalid value api/all=maybe"),
        ("api/all=false", "invalid runtime-config with only api/all=false"),
        ("batch/v7=true", "group version batch/v7 that has not been registered"),
        ("batch=true", "runtime-config invalid key batch"),
    ],
)
def test_a_version_that_there_is_not_is_refused(config: str, complaint: str) -> None:
    with pytest.raises(RuntimeConfigError, match=complaint):
        served(config)


def test_gates_keep_their_defaults_unless_set() -> None:
    states = set_gates(["ComponentFlagz=false"])

    assert not states["ComponentFlagz"]
    assert states["ComponentStatusz"]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("Nonsense=true", "unrecognized feature gate: Nonsense"),
        ("ComponentFlagz=maybe", "invalid value"),
        ("CPUManagerPolicyAlphaOptions=true", "Haven has no switch for it"),
        ("ComponentFlagz", "missing bool value for ComponentFlagz"),
        ("WatchList=false", "Haven has no switch for it"),
        (
            "AnyVolumeDataSource=false",
            "cannot set feature gate AnyVolumeDataSource to false, feature is locked to true",
        ),
        (
            "ClusterTrustBundleProjection=true",
            r"Projection is enabled, but depends on features that are disabled: \[ClusterTrustBundle\]",
        ),
    ],
)
def test_gates_that_mean_nothing_are_refused(setting: str, complaint: str) -> None:
    with pytest.raises(GateError, match=complaint):
        set_gates([setting])


def test_one_gate_wins_over_all_of_its_stage() -> None:
    states = set_gates(["AllBeta=true", "StorageVersionMigrator=false", "AllAlpha=true"])

    assert states["ClusterTrustBundle"]
    assert states["GenericWorkload"]
    assert not states["StorageVersionMigrator"]
    assert not set_gates(["AllBeta=false"])["NodeDeclaredFeatures"]


def test_resources_of_a_gate_are_not_served_without_it() -> None:
    def found(*gates: str) -> set[str]:
        table = scheme.table().values()
        return {one.plural for one in served_versions(table, ["api/all=true"], set_gates(gates))}

    assert not {"clustertrustbundles", "workloads", "storageversionmigrations"} & found()
    assert {"podgroups", "workloads"} <= found("GenericWorkload=true")
    assert "podcertificaterequests" in found("PodCertificateRequest=true")


def test_flags_reach_the_settings() -> None:
    settings = with_flags(Settings(), {"disable-admission-plugins": "ServiceAccount,Priority", "profiling": "false"})

    assert settings.disable_admission_plugins == ("ServiceAccount", "Priority")
    assert not settings.profiling
    assert "ServiceAccount" in DEFAULT


async def test_requests_are_counted_under_upstreams_labels(api: Api) -> None:
    await api.config_map("a")
    await api.send("GET", "/api/v1/namespaces/default/configmaps/a")

    text = (await api.raw("GET", "/metrics")).body.decode()

    assert (
        'apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",'
        'scope="resource",subresource="",verb="GET",version="v1"} 1'
    ) in text
    assert 'apiserver_storage_objects{resource="configmaps"} ' in text
    assert 'kubernetes_feature_enabled{name="ComponentFlagz",stage="BETA"} 1' in text


async def test_what_a_write_goes_through_is_measured(api: Api) -> None:
    await api.config_map("a")
    await api.send("GET", "/api/v1/configmaps")

    text = (await api.raw("GET", "/metrics")).body.decode()

    for line in (
        'etcd_requests_total{group="",operation="create",resource="configmaps"} 1',
        'etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"} 1',
        'apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",'
        'operation="CREATE",rejected="false",type="admit"} ',
        'apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="false",'
        'type="validate"} ',
        'apiserver_watch_cache_events_received_total{group="",resource="configmaps"} 1',
        'apiserver_cache_list_returned_objects_total{group="",resource="configmaps"} 1',
        'watch_cache_capacity{group="",resource="configmaps"} 8',
        'aggregator_unavailable_apiservice{name="v1.apps"} 0',
        'apiserver_request_body_size_bytes_bucket{group="",resource="configmaps",verb="create",le="50000"} 1',
        "process_resident_memory_bytes ",
        'registered_metrics_total{deprecated_version="",stability_level="STABLE"} ',
    ):
        assert f"\n{line}" in text, line
    assert "\nscheduler_" not in text


async def test_health_checks_are_counted(api: Api) -> None:
    await api.send("GET", "/readyz")
    await api.send("GET", "/readyz/etcd")

    text = (await api.raw("GET", "/metrics/slis")).body.decode()

    assert 'kubernetes_healthcheck{name="etcd",type="readyz"} 1\n' in text
    assert 'kubernetes_healthchecks_total{name="etcd",status="success",type="readyz"} 2\n' in text


async def test_flags_are_shown_as_text_and_as_an_object(api: Api) -> None:
    text = (await api.raw("GET", "/flagz", accept="text/plain")).body.decode()
    accept = "application/json;v=v1beta1;g=config.k8s.io;as=Flagz"
    status, flags = await api.send("GET", "/flagz", accept=accept)

    assert text.startswith("\napiserver flagz\nWarning: ")
    assert "\nanonymous-auth=" in text
    assert (status, flags["kind"]) == (200, "Flagz")
    assert flags["flags"]["enable-admission-plugins"] == "[NodeRestriction]"


async def test_the_status_says_which_version_runs(api: Api) -> None:
    accept = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz"
    _, facts = await api.send("GET", "/statusz", accept=accept)
    status, _ = await api.send("GET", "/statusz", accept="application/json;v=v7;g=config.k8s.io;as=Statusz")

    assert facts["binaryVersion"].startswith("1.36.")
    assert facts["emulationVersion"] == "1.36"
    assert status == 406


async def test_a_profile_shows_where_time_went(api: Api) -> None:
    status, body = await api.send("GET", "/debug/pprof/profile?seconds=0.05")

    assert status == 200
    assert b"cumulative" in body
    assert (await api.send("GET", "/debug/pprof/profile?seconds=soon"))[0] == 400
    assert b"flow-schemas" in (await api.send("GET", "/debug/pprof/tasks"))[1]
    assert (await api.send("GET", "/debug/pprof/"))[0] == 200
    assert await api.send("GET", "/debug/pprof/nosuch") == (404, b"Unknown profile\n")


async def test_a_server_whose_store_fails_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(key: bytes) -> None:
        raise StoreError("the store does not answer")

    assert (await api.send("GET", "/readyz"))[0] == 200
    monkeypatch.setattr(api.store, "get", fail)

    answer = await api.raw("GET", "/readyz")

    assert answer.status == 500
    assert b"[-]etcd failed: reason withheld" in answer.body
