"""Policies and webhooks in files: what is taken, what is refused in which words, and what they may look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haven.api import scheme
from haven.api.admissionregistration import v1
from haven.api.admissionregistration.strategies import STRATEGIES, reserving_static_names
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apiserver.admission.interface import CREATE, AdmissionRequest
from haven.apiserver.admission.manifests import GATE, Manifests, directory_of, load_policies, load_webhooks
from haven.apiserver.admission.policies.hooks import Hooks as PolicyHooks
from haven.apiserver.admission.webhooks.hooks import Hooks as WebhookHooks
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.request import UserInfo
from haven.clock import SystemClock

POLICY = """apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %s}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: "true"}]
"""
BINDING = """apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %s}
spec: {policyName: %s, validationActions: [Deny]}
"""
WEBHOOKS = """apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: w.static.k8s.io}
webhooks:
- name: a.example.com
  clientConfig: {%s}
  sideEffects: None
  admissionReviewVersions: [v1]
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]
"""
P, B, W = v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, v1.ValidatingWebhookConfiguration
BOUND = POLICY % "p.static.k8s.io" + "---\n" + BINDING % ("b.static.k8s.io", "p.static.k8s.io")


def a_request(obj: Any) -> AdmissionRequest:
    resource = scheme.resource_of(type(obj))
    return AdmissionRequest(CREATE, resource, "", "", obj.metadata.name, UserInfo("someone"), object=obj)


def test_policies_and_bindings_are_defaulted_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(POLICY % "z.static.k8s.io" + "---\n" + POLICY % "a.static.k8s.io")
    (tmp_path / "notes.txt").write_text("not a manifest")
    (tmp_path / "empty.yml").write_text("")
    loaded = load_policies(str(tmp_path), P, B)
    assert [one.metadata.name for one in loaded.of(P)] == ["a.static.k8s.io", "z.static.k8s.io"]
    assert loaded.of(P)[0].spec.failure_policy == "Fail"
    assert loaded.digest.startswith("sha256:")


def test_a_list_is_its_items(tmp_path: Path) -> None:
    items = "".join("- " + part.replace("\n", "\n  ").rstrip() + "\n" for part in BOUND.split("---\n"))
    (tmp_path / "all.yaml").write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    loaded = load_policies(str(tmp_path), P, B)
    assert [one.metadata.name for one in (*loaded.of(P), *loaded.of(B))] == ["p.static.k8s.io", "b.static.k8s.io"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POLICY % "p", '"p" in file "{file}" must have a name ending with ".static.k8s.io"'),
        (
            POLICY % "p.static.k8s.io" + "---\n" + POLICY % "p.static.k8s.io",
            'duplicate name "p.static.k8s.io" found in file "{file}" (previously seen in "{file}")',
        ),
        (POLICY % "p.static.k8s.io" + "  foo: 1\n", 'strict decoding error: unknown field "spec.foo"'),
        (
            POLICY % "p.static.k8s.io" + "  paramKind: {apiVersion: v1, kind: ConfigMap}\n",
            'ValidatingAdmissionPolicy "p.static.k8s.io": spec.paramKind is not supported for static manifests',
        ),
        (
            BINDING % ("b.static.k8s.io", "p"),
            'binding "b.static.k8s.io": spec.policyName "p" must end with ".static.k8s.io"',
        ),
        ("apiVersion: v1\nkind: ConfigMap\n", 'no kind "ConfigMap" is registered for version "v1"'),
        (WEBHOOKS % 'url: "https://a"', "unsupported resource type *v1.ValidatingWebhookConfiguration"),
        ("a: b\n", "Object 'Kind' is missing in 'a: b'"),
    ],
)
def test_a_policy_file_that_is_wrong_is_named_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_policies(str(tmp_path), P, B)
    assert str(refused.value) == f"error loading {file}: " + words.replace("{file}", str(file))


def test_a_binding_needs_its_policy_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BINDING % ("b.static.k8s.io", "p.static.k8s.io"))
    with pytest.raises(ConfigError, match="which does not exist in the manifest directory"):
        load_policies(str(tmp_path), P, B)


def test_webhooks_in_files_have_urls(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(WEBHOOKS % "service: {namespace: a, name: b}")
    with pytest.raises(ConfigError, match="service is not supported for static manifests"):
        load_webhooks(str(tmp_path), W)
    file.write_text(WEBHOOKS % 'url: "https://a.example.com"')
    assert [one.metadata.name for one in load_webhooks(str(tmp_path), W).of(W)] == ["w.static.k8s.io"]


@pytest.mark.parametrize(
    ("named", "is_on", "words"),
    [
        ("/", False, "requires the ManifestBasedAdmissionControlConfig feature gate to be enabled"),
        ("a/b", True, "must be an absolute file path"),
        ("/does/not/exist", True, "unable to read: stat /does/not/exist: no such file or directory"),
    ],
)
def test_a_folder_must_be_one(named: str, is_on: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        directory_of(named, {GATE: is_on})


async def test_good_changes_are_taken_over_and_bad_ones_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(BOUND)
    names: list[list[str]] = []
    folder = Manifests(
        "ValidatingAdmissionPolicy",
        str(tmp_path),
        lambda directory: load_policies(directory, P, B),
        lambda loaded: names.append([one.metadata.name for one in loaded.of(P)]),
        SystemClock(),
    )
    folder.begin("policy")
    await folder.look()
    (tmp_path / "b.yaml").write_text(POLICY % "q.static.k8s.io")
    await folder.look()
    good = folder.digest
    (tmp_path / "c.yaml").write_text(POLICY % "unreserved")
    await folder.look()
    assert names == [["p.static.k8s.io"], ["p.static.k8s.io", "q.static.k8s.io"]]
    assert (folder.reloads, folder.failures, folder.digest) == (2, 1, good)


def _webhooks(tmp_path: Path) -> WebhookHooks:
    (tmp_path / "a.yaml").write_text(WEBHOOKS % 'url: "https://a.example.com"')
    hooks = WebhookHooks(W)
    stored = W(metadata=meta.ObjectMeta(name="a"), webhooks=[v1.ValidatingWebhook(name="z.example.com")])
    hooks.changed(scheme.resource_of(W), None, stored)
    hooks.fix(load_webhooks(str(tmp_path), W).of(W))
    return hooks


def test_webhooks_of_files_come_first_and_alone_judge_what_configures_admission(tmp_path: Path) -> None:
    hooks = _webhooks(tmp_path)
    own = W(metadata=meta.ObjectMeta(name="other"))
    plain = core.ConfigMap(metadata=meta.ObjectMeta(name="x"))
    assert [one.name for one in hooks.about(a_request(plain))] == ["a.example.com", "z.example.com"]
    assert [one.uid for one in hooks.about(a_request(own))] == ["manifest/w.static.k8s.io/a.example.com/0"]


def test_policies_of_files_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BOUND)
    compile_: Callable[[v1.ValidatingAdmissionPolicy], str] = lambda policy: policy.metadata.name  # noqa: E731
    hooks = PolicyHooks(P, B, compile_)
    hooks.changed(scheme.resource_of(P), None, P(metadata=meta.ObjectMeta(name="a")))
    binding = B(metadata=meta.ObjectMeta(name="a"))
    binding.spec.policy_name = "a"
    hooks.changed(scheme.resource_of(B), None, binding)
    loaded = load_policies(str(tmp_path), P, B)
    hooks.fix(loaded.of(P), loaded.of(B))
    assert [one.evaluator for one in hooks.all()] == ["p.static.k8s.io", "a"]
    assert [one.evaluator for one in hooks.fixed] == ["p.static.k8s.io"]


def test_nobody_makes_an_object_of_a_reserved_name_when_files_are_in_use() -> None:
    strategy = reserving_static_names(STRATEGIES["validatingwebhookconfigurations"])
    new = W(metadata=meta.ObjectMeta(name="w.static.k8s.io"))
    assert "are reserved for static manifest-based configurations" in str(strategy.validate(new)[0])
    assert strategy.warnings(new, None) == []
    assert STRATEGIES["validatingwebhookconfigurations"].warnings(new, None) != []
