"""Rights that come with feature gates, and who may answer certificate requests of Pods."""

from __future__ import annotations

import pytest
from tests.spec.apiserver.access.test_admission import a_request

from haven.api.certificates import v1beta1 as certificates
from haven.api.rbac import v1 as rbac
from haven.apimachinery import meta, serialization, times
from haven.apimachinery.apierrors import Invalid
from haven.apiserver.admission.podcertificates import PodCertificateAnswers
from haven.apiserver.authorization.abac import AlwaysAllow
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.bootstrap.objects import BootstrapSettings, bootstrap_objects, node_rules
from haven.clock import FakeClock

PUBLISHER = "system:controller:kube-apiserver-serving-clustertrustbundle-publisher"


def cluster_roles(**states: bool) -> dict[str, rbac.ClusterRole]:
    objects = bootstrap_objects(BootstrapSettings(states=states))
    return {one.metadata.name: one for one in objects if isinstance(one, rbac.ClusterRole)}


def test_a_gate_brings_the_roles_of_its_controllers() -> None:
    assert PUBLISHER not in cluster_roles()

    found = cluster_roles(ClusterTrustBundle=True)

    assert found[PUBLISHER].rules[0].verbs == ["attest"]
    bindings = bootstrap_objects(BootstrapSettings(states={"ClusterTrustBundle": True}))
    found_bindings = {one.metadata.name: one for one in bindings if isinstance(one, rbac.ClusterRoleBinding)}
    (subject,) = found_bindings["system:cluster-trust-bundle-discovery"].subjects
    assert subject.name == "system:serviceaccounts"


def test_a_gate_adds_to_what_nodes_and_schedulers_may() -> None:
    more = len(node_rules({"PodCertificateRequest": True})) - len(node_rules())

    assert more == 1
    assert len(cluster_roles(GenericWorkload=True)["system:kube-scheduler"].rules) == (
        len(cluster_roles()["system:kube-scheduler"].rules) + 2
    )


async def test_who_may_not_sign_does_not_answer_and_answers_are_of_this_moment() -> None:
    clock = FakeClock()
    old = certificates.PodCertificateRequest(metadata=meta.ObjectMeta(name="r", namespace="ns"))
    old.spec.signer_name = "example.com/s"
    new = serialization.copy(old)
    new.status.not_before = times.format_time(clock.now_seconds())
    request = a_request(new, old, subresource="status")

    await PodCertificateAnswers(AlwaysAllow(), clock).validate(request)
    with pytest.raises(Invalid, match='User "jane" is not permitted to "sign" for signer'):
        await PodCertificateAnswers(RBAC(), clock).validate(request)
    new.status.not_before = times.format_time(clock.now_seconds() - 3600)
    with pytest.raises(Invalid, match="within 5 minutes of kube-apiserver"):
        await PodCertificateAnswers(AlwaysAllow(), clock).validate(request)
