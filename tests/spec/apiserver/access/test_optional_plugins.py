"""Plugins that an operator switches on, and what a configuration file tells plugins."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.spec.apiserver.access.test_admission import (
    a_container,
    a_pod,
    a_request,
    admitted,
    amounts,
    refusal,
    without_policies,
    without_webhooks,
)

from haven.api.batch import v1 as batch
from haven.api.certificates import v1beta1 as certificates
from haven.api.core import v1 as core
from haven.api.scheduling import v1alpha2 as scheduling
from haven.apimachinery import meta
from haven.apimachinery.apierrors import ApiError, TooManyRequests
from haven.apiserver.admission.chain import ORDER, AdmissionChain
from haven.apiserver.admission.configuration import PluginConfigs, read_configuration
from haven.apiserver.admission.plugins import DEFAULT, AdmissionSettings, Parts, chosen_plugins, make_plugins
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.webhooks.caller import CallFailed
from haven.clock import FakeClock


class Asked:
    """A program of the operator: answers are taken from a list, what was asked is kept."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def __call__(self, body: bytes) -> bytes:
        self.asked.append(json.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return json.dumps({"status": answer}).encode()


def a_chain(objects: Any, *names: str, config: Any = None, post: Any = None, clock: Any = None) -> AdmissionChain:
    """Return a chain of just these plugins, the first of which has a configuration."""
    documents = {} if config is None else {names[0]: json.dumps(config).encode()}
    disabled = [name for name in DEFAULT if name not in names]
    settings = AdmissionSettings(
        [name for name in names if name not in DEFAULT], disabled, configs=PluginConfigs(documents)
    )

    async def create(namespace: core.Namespace) -> object:
        return objects.put(namespace)

    parts = Parts(
        objects,
        RBAC(),
        clock or FakeClock(),
        random.Random(7),
        without_webhooks(objects),
        without_policies(objects),
        settings,
        create_namespace=create,
        post_of=lambda path, pause: post,
    )
    return AdmissionChain(make_plugins(parts))


def put_namespace(objects: Any, **annotations: str) -> None:
    names = {f"scheduler.alpha.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    objects.put(core.Namespace(metadata=meta.ObjectMeta(name="ns", annotations=names)))


# ---- which plugins run


def test_every_plugin_of_upstream_can_be_switched_on() -> None:
    everything = chosen_plugins(AdmissionSettings(ORDER))

    assert everything == list(ORDER)


def test_gated_plugins_are_idle_without_their_gate() -> None:
    names = chosen_plugins(AdmissionSettings(states={"GenericWorkload": False, "WorkloadWithJob": False}))

    assert not {"JobValidation", "PodGroupProtection", "PodGroupWorkloadExists"} & set(names)
    assert "ClusterTrustBundleAttest" in names


@pytest.mark.parametrize(
    ("enabled", "disabled", "complaint"),
    [
        (["A"], ["B"], r'\[enable-.* plugin "A" is unknown, disable-admission-plugins plugin "B" is unknown\]'),
        (["AlwaysDeny"], ["AlwaysDeny"], r"\[AlwaysDeny\] in enable-admission-plugins and .* overlapped"),
    ],
)
def test_settings_that_make_no_sense_are_refused(enabled: list[str], disabled: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        chosen_plugins(AdmissionSettings(enabled, disabled))


def test_what_is_added_by_default_can_be_switched_off() -> None:
    assert "NodeRestriction" not in chosen_plugins(AdmissionSettings(disabled=["NodeRestriction"]))


def test_a_plugin_that_does_not_run_is_not_imported() -> None:
    code = (
        "import sys, haven.apiserver.assembly;"
        "print([n for n in sys.modules if n.rsplit('.')[-1] in ('imagepolicy', 'podnodeselector', 'eventratelimit')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert found.strip() == "[]"


# ---- the configuration file


def test_plugins_are_told_in_the_file_or_in_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("a: 1")
    main = tmp_path / "admission.yaml"
    main.write_text(
        """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- {name: EventRateLimit, path: limits.yaml}
- {name: PodSecurity, configuration: {kind: X}}
- {name: PodSecurity, configuration: {kind: Y}}
"""
    )

    found = read_configuration(str(main))

    assert found.of("EventRateLimit") == b"a: 1"
    assert found.of("PodSecurity") == b'{"kind":"X"}'
    assert found.of("ResourceQuota") is None


def test_files_of_the_older_form_are_for_the_plugins_that_had_it(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b}")

    found = read_configuration(str(old))

    assert found.of("PodNodeSelector") == old.read_bytes()
    assert found.of("PodSecurity") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind: AdmissionConfiguration\napiVersion: v7", "failed to read plugin config: no kind"),
        ("kind: AdmissionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nplugin: []", "strict decoding error"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=complaint):
        read_configuration(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unable to read admission control configuration from .*no such file"):
        read_configuration(str(tmp_path / "none"))


# ---- namespaces


async def test_a_write_makes_its_namespace(objects: Any) -> None:
    chain = a_chain(objects, "NamespaceAutoProvision", "NamespaceLifecycle")
    claim = core.ConfigMap(metadata=meta.ObjectMeta(name="a", namespace="fresh"))

    assert "not found" in await refusal(chain, a_request(claim, dry_run=True))
    await admitted(chain, a_request(claim))

    assert [one.metadata.name for one in objects.list(core_resource())] == ["fresh"]


def core_resource() -> Any:
    from haven.api import scheme

    return scheme.resource_of(core.Namespace)


async def test_a_namespaces_labels_join_a_pods_node_selector(objects: Any) -> None:
    put_namespace(objects, node_selector="env=dev, pool = x")
    chain = a_chain(objects, "PodNodeSelector", config={"podNodeSelectorPluginConfig": {"ns": "env=dev,pool=x,a=b"}})

    pod = await admitted(chain, a_request(a_pod(node_selector={"a": "b"})))

    assert pod.spec.node_selector == {"env": "dev", "pool": "x", "a": "b"}
    wrong = a_request(a_pod(node_selector={"env": "prod"}))
    assert "conflicts with its namespace node label selector" in await refusal(chain, wrong)
    foreign = a_request(a_pod(node_selector={"c": "d"}))
    assert "labels conflict with its namespace whitelist" in await refusal(chain, foreign)


async def test_namespaces_that_say_nothing_have_the_clusters_selector(objects: Any) -> None:
    put_namespace(objects)
    default = {"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "pool=general"}}
    chain = a_chain(objects, "PodNodeSelector", config=default)

    assert (await admitted(chain, a_request(a_pod()))).spec.node_selector == {"pool": "general"}


async def test_a_selector_that_is_none_fails_the_request(objects: Any) -> None:
    put_namespace(objects, node_selector="env")

    with pytest.raises(ApiError) as failed:
        await admitted(a_chain(objects, "PodNodeSelector"), a_request(a_pod()))

    assert (failed.value.code, failed.value.message) == (500, "invalid selector: [env]")


async def test_tolerations_of_the_namespace_are_merged_and_bounded(objects: Any) -> None:
    put_namespace(
        objects,
        defaultTolerations='[{"key": "k", "operator": "Exists"}]',
        tolerationsWhitelist='[{"key": "k", "operator": "Exists"}, {"operator": "Exists", "effect": "NoSchedule"}]',
    )
    chain = a_chain(objects, "PodTolerationRestriction")
    burstable = a_container(resources=core.ResourceRequirements(requests=amounts(cpu="1")))

    pod = await admitted(chain, a_request(a_pod(containers=[burstable])))

    assert [one.key for one in pod.spec.tolerations] == ["k", "node.kubernetes.io/memory-pressure"]
    wrong = a_pod(tolerations=[core.Toleration(key="z", operator="Exists", effect="NoExecute")])
    assert await refusal(chain, a_request(wrong)) == (
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
    )


def test_a_default_toleration_that_is_wrong_is_refused(objects: Any) -> None:
    config = {
        "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1",
        "kind": "Configuration",
        "default": [{"key": "a b"}],
    }
    with pytest.raises(
        ConfigError, match=r'couldn\'t init admission plugin "PodTolerationRestriction": invalid config'
    ):
        a_chain(objects, "PodTolerationRestriction", config=config)


# ---- images


def image_policy(**settings: Any) -> dict[str, Any]:
    return {"imagePolicy": {"kubeConfigFile": "/x", **settings}}


async def test_images_are_reviewed_once_while_the_answer_counts(objects: Any) -> None:
    clock = FakeClock()
    post = Asked({"allowed": True, "auditAnnotations": {"seen": "yes"}}, {"allowed": False, "reason": "too old"})
    chain = a_chain(objects, "ImagePolicyWebhook", config=image_policy(allowTTL=2), post=post, clock=clock)
    pod = a_pod(init_containers=[core.Container(name="i", image="init")])
    pod.metadata.annotations = {"me.image-policy.k8s.io/why": "because", "other": "x"}

    request = a_request(pod)
    await admitted(chain, request)
    await admitted(chain, a_request(pod))
    await clock.advance(3)
    said = await refusal(chain, a_request(pod))

    assert said == 'pods "a" is forbidden: image policy webhook backend denied one or more images: too old'
    assert len(post.asked) == 2
    assert post.asked[0]["spec"] == {
        "containers": [{"image": "i"}, {"image": "init"}],
        "annotations": {"me.image-policy.k8s.io/why": "because"},
        "namespace": "ns",
    }
    assert request.audit_annotations == {"imagepolicywebhook.image-policy.k8s.io/seen": "yes"}


async def test_when_nobody_reviews_images_the_configuration_decides(objects: Any) -> None:
    strict = a_chain(objects, "ImagePolicyWebhook", config=image_policy(), post=Asked(CallFailed("gone")))
    assert await refusal(strict, a_request(a_pod())) == 'pods "a" is forbidden: gone'

    lenient = a_chain(
        objects, "ImagePolicyWebhook", config=image_policy(defaultAllow=True), post=Asked(CallFailed("gone"))
    )
    request = a_request(a_pod())
    pod = await admitted(lenient, request)

    assert pod.metadata.annotations == {"alpha.image-policy.k8s.io/failed-open": "true"}
    assert request.audit_annotations == {"imagepolicywebhook.image-policy.k8s.io/failed-open": "true"}


@pytest.mark.parametrize(
    ("config", "complaint"),
    [(None, "no config specified"), (image_policy(allowTTL=3600), "is between 1s and 30m0s, got 1h0m0s")],
)
def test_an_image_policy_that_cannot_be_is_refused(objects: Any, config: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        a_chain(objects, "ImagePolicyWebhook", config=config)


# ---- events, quotas, security levels


async def test_events_beyond_all_limits_are_refused(objects: Any) -> None:
    clock = FakeClock()
    limits = [{"type": "Namespace", "qps": 1, "burst": 1}, {"type": "User", "qps": 1, "burst": 1}]
    config = {"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits}
    chain = a_chain(objects, "EventRateLimit", config=config, clock=clock)
    event = core.Event(metadata=meta.ObjectMeta(namespace="ns", name="e"))

    await admitted(chain, a_request(event))
    with pytest.raises(TooManyRequests) as refused:
        await admitted(chain, a_request(event))
    await clock.advance(1)
    await admitted(chain, a_request(event))

    assert refused.value.message == (
        "Too many requests: [limit reached on type Namespace for key ns, limit reached on type User for key jane]"
    )


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ([], "limits: Invalid value: null: must not be empty"),
        ([{"type": "Server", "qps": 1}], r"limits\[0\].burst: Invalid value: 0: must be positive"),
        ([{"type": "X", "qps": 1, "burst": 1}], r'Unsupported value: "X"'),
    ],
)
def test_limits_that_limit_nothing_are_refused(objects: Any, limits: Any, complaint: str) -> None:
    config = {"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits}
    with pytest.raises(ConfigError, match=complaint):
        a_chain(objects, "EventRateLimit", config=config)


async def test_what_is_limited_needs_a_quota_that_covers_it(objects: Any) -> None:
    limited = [
        {"resource": "services", "matchContains": ["services.nodeports"]},
        {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]},
    ]
    config = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "ResourceQuotaConfiguration",
        "limitedResources": limited,
    }
    chain = a_chain(objects, "ResourceQuota", config=config)
    service = core.Service(metadata=meta.ObjectMeta(namespace="ns", name="s"))
    service.spec.type = "NodePort"
    service.spec.ports = [core.ServicePort(port=1)]

    assert await refusal(chain, a_request(service)) == (
        'services "s" is forbidden: insufficient quota to consume: services.nodeports'
    )
    assert await refusal(chain, a_request(a_pod(priority_class_name="high"))) == (
        "insufficient quota to match these scopes: [{PriorityClass In [high]}]"
    )
    await admitted(chain, a_request(a_pod()))
    quota = core.ResourceQuota(metadata=meta.ObjectMeta(namespace="ns", name="q"))
    quota.status.hard = amounts(services_nodeports="5")
    quota.status.used = amounts(services_nodeports="0")
    objects.put(quota)
    await admitted(chain, a_request(service))


async def test_levels_and_exemptions_come_from_the_configuration(objects: Any) -> None:
    put_namespace(objects)
    config = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
        "exemptions": {"runtimeClasses": ["kata"]},
    }
    chain = a_chain(objects, "PodSecurity", config=config)

    assert 'violates PodSecurity "baseline:v1.30"' in await refusal(chain, a_request(a_pod(host_pid=True)))
    await admitted(chain, a_request(a_pod(host_pid=True, runtime_class_name="kata")))
    config["defaults"] = {"enforce": "strict", "warn-version": "7"}
    with pytest.raises(ConfigError, match=r"defaults\.enforce.*must be one of .*defaults\.warn-version"):
        a_chain(objects, "PodSecurity", config=config)


# ---- workloads, nodes' features, trust bundles


def a_group(template: str = "", **spec: Any) -> scheduling.PodGroup:
    group = scheduling.PodGroup(
        metadata=meta.ObjectMeta(namespace="ns", name="g"), spec=scheduling.PodGroupSpec(**spec)
    )
    if template:
        reference = scheduling.WorkloadPodGroupTemplateReference(workload_name="w", pod_group_template_name=template)
        group.spec.pod_group_template_ref = scheduling.PodGroupTemplateReference(workload=reference)
    return group


async def test_a_group_belongs_to_a_template_that_exists_and_is_protected(objects: Any) -> None:
    chain = a_chain(objects, "PodGroupProtection", "PodGroupWorkloadExists")

    assert await refusal(chain, a_request(a_group("t"))) == (
        'podgroups.scheduling.k8s.io "g" is forbidden: PodGroup rejected: Workload "w" not found'
    )
    workload = scheduling.Workload(metadata=meta.ObjectMeta(namespace="ns", name="w"))
    workload.spec.pod_group_templates = [scheduling.PodGroupTemplate(name="t")]
    objects.put(workload)
    group = await admitted(chain, a_request(a_group("t")))
    assert group.metadata.finalizers == ["scheduling.k8s.io/podgroup-protection"]
    assert 'PodGroupTemplate "u" not found in Workload "w"' in await refusal(chain, a_request(a_group("u")))


async def test_a_job_of_a_gang_keeps_its_parallelism(objects: Any) -> None:
    gang = scheduling.PodGroupSchedulingPolicy(gang=scheduling.GangSchedulingPolicy(min_count=2))
    objects.put(a_group(scheduling_policy=gang))
    chain = a_chain(objects, "JobValidation")
    old = batch.Job(metadata=meta.ObjectMeta(namespace="ns", name="j"))
    old.spec.parallelism = 1
    old.spec.template.spec.scheduling_group = core.PodSchedulingGroup(pod_group_name="g")
    new = batch.Job(metadata=old.metadata, spec=batch.JobSpec(parallelism=2, template=old.spec.template))

    assert "cannot change parallelism for a Job referencing gang-scheduled PodGroup" in await refusal(
        chain, a_request(new, old)
    )
    await admitted(chain, a_request(old, old))


async def test_a_bound_pod_is_not_resized_beyond_what_its_node_can_do(objects: Any) -> None:
    node = core.Node(metadata=meta.ObjectMeta(name="n"))
    objects.put(node)
    chain = a_chain(objects, "NodeDeclaredFeatureValidator")
    old = a_pod(node_name="n")
    new = a_pod(node_name="n", resources=core.ResourceRequirements(limits=amounts(cpu="2")))
    new.metadata.generation = 2

    assert await refusal(chain, a_request(new, old, subresource="resize")) == (
        'pods "a" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not'
        ' available on node "n"'
    )
    node.status.declared_features = ["InPlacePodLevelResourcesVerticalScaling"]
    await admitted(chain, a_request(new, old, subresource="resize"))


async def test_only_who_may_attest_writes_a_signers_trust(objects: Any) -> None:
    chain = a_chain(objects, "ClusterTrustBundleAttest")
    bundle = certificates.ClusterTrustBundle(metadata=meta.ObjectMeta(name="a"))
    await admitted(chain, a_request(bundle))
    bundle.spec.signer_name = "example.com/mine"

    assert await refusal(chain, a_request(bundle)) == (
        'clustertrustbundles.certificates.k8s.io "a" is forbidden: user not permitted to attest for signerName'
        ' "example.com/mine"'
    )
    await admitted(chain, a_request(bundle, bundle))  # Owners and finalizers may change.
