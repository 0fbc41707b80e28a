"""Objects are defaulted, checked and changed as upstream did in its recorded conversations.

A conversation is replayed without a server: every POST, PUT and merge patch of an object goes through its Strategy
alone, and the outcome is compared with the recorded answer: the object (201, 200) or the complaints (422). What
admission, allocation of addresses, authorization and the generic machinery add is left out, by the rules below.
Run this file as a program to see the score: `python tests/spec/api/test_golden_objects.py [words of file names]`.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from haven.api.core import v1 as core_v1
from haven.api.scheme import GroupVersionResource, Resource, table
from haven.api.strategies import strategy_for
from haven.api.strategy import Strategy, create_errors, update_errors
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import GroupKind, Invalid
from haven.apiserver.registry.versions import Conversion, conversion

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
NAMESPACE = "golden-namespace"
UID = "11111111-2222-3333-4444-555555555555"
TIME = "2026-01-02T03:04:05Z"

_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_HASH = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}\b|(?<=-)[bcdfghjklmnpqrstvwxz2456789]{8,10}\b")
_KUBE_API_ACCESS = "/var/run/secrets/kubernetes.io/serviceaccount"

# Conversations about other things than the kinds' own rules: machinery in front of, or behind, the strategies.
_OTHER_FILES = (
    "admission", "auth-reviews", "delete", "discovery", "field-validation", "kind-deletion",
    "kind-field-selectors", "kind-pod-security", "kind-reviews", "kind-tables", "patch-", "pod-security-levels",
    "pod-subresources",
    "quota-and-limits", "selectors", "smoke", "watch", "apply",
)  # fmt: skip


# Complaints of others: allocators of addresses and ports, the compiler of expressions, admission, the registry.
_OTHER_COMPLAINTS = (
    "provided port is", "failed to allocate IP", "compilation failed: ERROR", "must evaluate to", "denied request:",
    "admin access to devices requires", "must be specified for an update", "estimated rule cost",
    '.default"', '.rule", "reason": "FieldValueForbidden"', "less than or equal to cpu limit of 500m",
)  # fmt: skip


# Groups whose older versions are stored as newer ones.
_CONVERTED_GROUPS = ("autoscaling", "resource.k8s.io")


def _identity(resource: Resource[Any]) -> Conversion:
    return Conversion(resource, resource, lambda tree: None, lambda tree: None)


@dataclass
class Outcome:
    """One compared step: what differs, empty if nothing."""

    step: int
    do: str
    differences: list[str] = field(default_factory=list)


def fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if isinstance(value, dict):
        return {fill(key, names): fill(item, names) for key, item in value.items()}
    return value


def plain(value: Any, key: str = "") -> Any:
    """Write what differs from run to run as placeholders, as the recording does."""
    if isinstance(value, dict):
        return {k.replace(NAMESPACE, "{ns}"): plain(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(item, key) for item in value]
    if key in ("resourceVersion", "observedResourceVersion") and value:
        return "<rv>"
    if key == "uid" and value:
        return "<uid>"
    if isinstance(value, str):
        value = value.replace(NAMESPACE, "{ns}").replace("\u00a0", " ")
        return _HASH.sub("<hash>", _UID.sub("<uid>", _TIME.sub("<time>", value)))
    return value


def concrete(value: Any) -> Any:
    """Write placeholders of the recording as values."""
    text = (
        json.dumps(value).replace("<uid>", UID).replace("<time>", TIME).replace("<rv>", "1").replace("{ns}", NAMESPACE)
    )
    return json.loads(
        re.sub(r"\{\w+\}", UID, text)
        .replace("<ip>", "10.0.0.1")
        .replace('"<port>"', "30000")
        .replace("<hash>", "bcdfg")
    )


def remove(value: Any, path: str) -> None:
    head, _, rest = path.partition(".")
    if isinstance(value, list):
        for item in value:
            remove(item, rest if head == "*" else path)
    elif isinstance(value, dict):
        if rest:
            remove(value.get(head), rest)
        else:
            value.pop(head, None)


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, item in patch.items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), item)
    return result


def differences(want: Any, got: Any, path: str = "$") -> Iterator[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(set(want) | set(got)):
            if key not in got:
                yield f"{path}.{key}: missing, want {json.dumps(want[key])[:400]}"
            elif key not in want:
                yield f"{path}.{key}: not expected, got {json.dumps(got[key])[:400]}"
            else:
                yield from differences(want[key], got[key], f"{path}.{key}")
    elif isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            shown = f"{json.dumps(got)[:400]} instead of {json.dumps(want)[:400]}"
            yield f"{path}: want {len(want)} items, got {len(got)}: {shown}"
        for index, (a, b) in enumerate(zip(want, got, strict=False)):
            yield from differences(a, b, f"{path}[{index}]")
    elif want != got:
        yield f"{path}: want {json.dumps(want)[:700]}, got {json.dumps(got)[:700]}"


@dataclass(frozen=True)
class Target:
    resource: Resource[Any]
    namespace: str
    name: str
    subresource: str


def target_of(path: str) -> Target | None:
    parts = [urllib.parse.unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return None
    resource = table().get(GroupVersionResource(group, version, rest[0]))
    if resource is None:
        return None
    return Target(resource, namespace, rest[1] if len(rest) > 1 else "", "/".join(rest[2:]))


class Conversation:
    """The objects of one scenario, as far as they can be followed without a server."""

    def __init__(self, scenario: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        self.steps = scenario["steps"]
        self.answers = answers
        self.objects: dict[tuple[str, str, str, str], Any] = {}

    def outcomes(self) -> Iterator[Outcome]:
        for index, (step, answer) in enumerate(zip(self.steps, self.answers, strict=False)):
            filled = fill(step, {"ns": NAMESPACE})
            method, path = filled["do"].split(" ", 1)
            target = target_of(path)
            if target is None:
                continue
            outcome = None
            if self._is_compared(method, target, filled, answer):
                found = self._differences(method, target, filled, answer)
                if found is not None:
                    outcome = Outcome(index + 1, step["do"], found)
                    yield outcome
            if "dryRun" not in path:
                self._remember(method, target, answer, outcome)

    def _key(self, target: Target, name: str = "") -> tuple[str, str, str, str]:
        return (target.resource.group_resource.group, target.resource.plural, target.namespace, name or target.name)

    def _is_compared(self, method: str, target: Target, step: dict[str, Any], answer: dict[str, Any]) -> bool:
        if "raw" in step or "as" in step or step.get("volatile") or step.get("keep") or "watch" in step:
            return False
        if not isinstance(step.get("body"), dict) or not isinstance(answer["body"], dict):
            return False
        if answer["status"] not in (200, 201, 422) or any("{" in str(v) for v in [step["do"]]):
            return False
        if answer["status"] == 422 and answer["body"].get("reason") != "Invalid":
            return False
        words = json.dumps(answer["body"], ensure_ascii=False) if answer["status"] == 422 else ""
        if target.resource.kind == "Pod" and self._is_filled_by_admission(step["body"], answer["body"]):
            return False
        if any(text in words for text in _OTHER_COMPLAINTS) or "fieldValidation=" in step["do"]:
            return False
        if (step.get("accept") or "application/json") != "application/json":
            return False
        if method == "POST":
            return not target.subresource and not target.name
        if method == "PUT":
            return self._key(target) in self.objects and target.subresource != "scale"
        if target.resource.kind == "ControllerRevision" or (target.resource.kind, target.subresource) == (
            "Job",
            "status",
        ):
            return False  # The recording depends on the spaces in the JSON sent first, or on a controller.
        if method == "PATCH":
            return (
                step.get("type") == "application/merge-patch+json"
                and self._key(target) in self.objects
                and target.subresource != "scale"
            )
        return False

    @staticmethod
    def _is_filled_by_admission(given: dict[str, Any], answer: dict[str, Any]) -> bool:
        """Tell whether a Pod gets values from a LimitRange or RuntimeClass, or amounts that do not fit into 64 bits."""
        annotations = (answer.get("metadata") or {}).get("annotations") or {}
        by_class = "runtimeClassName" in (given.get("spec") or {})
        return by_class or "kubernetes.io/limit-ranger" in annotations or "e399" in json.dumps(answer)

    def _differences(
        self, method: str, target: Target, step: dict[str, Any], answer: dict[str, Any]
    ) -> list[str] | None:
        resource = target.resource
        versions = conversion(resource) if resource.group in _CONVERTED_GROUPS else _identity(resource)
        strategy = strategy_for(versions.stored)
        body = copy.deepcopy(step["body"])
        old = None
        if method == "PATCH":
            old = self.objects[self._key(target)]
            body = merge(serialization.to_tree(old), body)
        elif method == "PUT":
            old = self.objects[self._key(target)]
        if body.get("kind") != resource.kind or body.get("apiVersion") != resource.api_version:
            return None
        if resource.type is not type(old) and old is not None:
            return None
        try:
            new = versions.to_stored(serialization.convert(concrete(body), resource.type))
            if old is not None:
                old = versions.to_stored(serialization.copy(old))
        except msgspec.ValidationError:
            return None
        if not resource.namespaced or not new.metadata.namespace:
            new.metadata.namespace = target.namespace  # The registry does this before.
        strategy = strategy if not target.subresource else strategy.subresources.get(target.subresource, Strategy())
        strategy.default(new)
        if resource.kind == "Pod":
            admit_pod(new, old)
        if resource.kind == "Service" and not target.subresource:
            allocate_service(new, old)
        if old is None:
            errors = self._create(strategy, new, resource)
        else:
            errors = self._update(strategy, new, old, resource)
        if errors:
            kind = resource.group_kind
            if strategy.complaint_group is not None:
                kind = GroupKind(strategy.complaint_group, kind.kind)
            got = Invalid.of(kind, new.metadata.name, errors).status()
            tree = plain(serialization.to_tree(got))
            if answer["status"] != 422:
                return [f"refused: {tree['message']}"]
            want, found = self._complaints(answer["body"]), self._complaints(tree)
            if want["message"] is None:  # Not all of the answer was recorded.
                found["message"] = None
                kept = set().union(*(want["causes"] or ()))
                found["causes"] = [{k: v for k, v in cause.items() if k in kept} for cause in found["causes"]]
            return list(differences(want, found))
        if answer["status"] == 422:
            return [f"accepted, want {json.dumps(self._complaints(answer['body']))[:1500]}"]
        new = versions.to_served(new)
        want, got_tree = copy.deepcopy(answer["body"]), plain(serialization.to_tree(new))
        for path in step.get("drop") or []:
            remove(got_tree, path)
            remove(want, path)
        forgive(resource, concrete(body), want, got_tree)
        return list(differences(want, got_tree))

    def _create(self, strategy: Any, new: Any, resource: Resource[Any]) -> Any:
        metadata = new.metadata
        metadata.uid, metadata.creation_timestamp = UID, TIME
        metadata.resource_version, metadata.deletion_timestamp, metadata.deletion_grace_period_seconds = "", None, None
        metadata.self_link = ""
        if metadata.generate_name and not metadata.name:
            metadata.name = metadata.generate_name + "bcdfg"
        metadata.generation = 0
        strategy.prepare_for_create(new)
        return create_errors(strategy, new, namespaced=resource.namespaced)

    def _update(self, strategy: Any, new: Any, old: Any, resource: Resource[Any]) -> Any:
        new.metadata.generation = old.metadata.generation
        new.metadata.resource_version = new.metadata.resource_version or "1"
        new.metadata.managed_fields = []
        strategy.prepare_for_update(new, old)
        new.metadata.uid = new.metadata.uid or old.metadata.uid
        new.metadata.creation_timestamp = old.metadata.creation_timestamp
        if old.metadata.deletion_timestamp:
            new.metadata.deletion_timestamp = old.metadata.deletion_timestamp
        if (
            old.metadata.deletion_grace_period_seconds is not None
            and new.metadata.deletion_grace_period_seconds is None
        ):
            new.metadata.deletion_grace_period_seconds = old.metadata.deletion_grace_period_seconds
        return update_errors(strategy, new, old, namespaced=resource.namespaced)

    @staticmethod
    def _complaints(status: dict[str, Any]) -> dict[str, Any]:
        details = status.get("details") or {}
        return {"message": status.get("message"), "causes": details.get("causes")}

    def _remember(self, method: str, target: Target, answer: dict[str, Any], outcome: Outcome | None) -> None:
        """Keep our own object where it was right, else the recorded one."""
        body = answer["body"]
        if answer["status"] not in (200, 201) or not isinstance(body, dict) or method == "DELETE":
            if method == "DELETE" and answer["status"] == 200:
                self.objects.pop(self._key(target), None)
            return
        if body.get("kind") != target.resource.kind or not isinstance(body.get("metadata"), dict):
            return
        key = self._key(target, concrete(body["metadata"].get("name", "")))
        try:
            recorded = serialization.convert(concrete(body), target.resource.type)
        except msgspec.ValidationError:
            return
        self.objects[key] = recorded


def admit_pod(pod: Any, old: Any) -> None:
    """Do what the plugins ServiceAccount, Priority and DefaultTolerationSeconds do before validation."""
    if old is not None and pod.spec.priority is None:
        pod.spec.priority = old.spec.priority
    if old is not None and pod.spec.preemption_policy is None:
        pod.spec.preemption_policy = old.spec.preemption_policy
    if old is None and not pod.spec.service_account_name:
        pod.spec.service_account_name = pod.spec.service_account = "default"
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(item.key in (key, "") and item.effect in ("NoExecute", "") for item in pod.spec.tolerations):
            toleration = core_v1.Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=300)
            pod.spec.tolerations = [*pod.spec.tolerations, toleration]


def allocate_service(service: Any, old: Any) -> None:
    """Give a Service addresses as the allocator does, which runs before validation."""
    spec = service.spec
    if spec.type == "ExternalName":
        if old is None and spec.cluster_ip and not spec.cluster_ips:
            spec.cluster_ips = [spec.cluster_ip]
        return
    if old is not None and old.spec.type != "ExternalName" and not spec.cluster_ip and not spec.cluster_ips:
        spec.cluster_ip, spec.cluster_ips = old.spec.cluster_ip, list(old.spec.cluster_ips)
    if old is None and spec.cluster_ip and not spec.cluster_ips:
        spec.cluster_ips = [spec.cluster_ip]
    if old is not None and spec.cluster_ip != old.spec.cluster_ip and spec.cluster_ips == old.spec.cluster_ips:
        spec.cluster_ips = [spec.cluster_ip] if spec.cluster_ip else []
    if not spec.cluster_ip and not spec.cluster_ips:
        spec.cluster_ip, spec.cluster_ips = "10.0.0.1", ["10.0.0.1"]
    if old is not None and old.spec.health_check_node_port and not spec.health_check_node_port:
        if spec.external_traffic_policy == "Local" and spec.type == "LoadBalancer":
            spec.health_check_node_port = old.spec.health_check_node_port
    if spec.external_traffic_policy == "Local" and spec.type == "LoadBalancer" and not spec.health_check_node_port:
        spec.health_check_node_port = 30001


def forgive(resource: Resource[Any], body: dict[str, Any], want: dict[str, Any], got: dict[str, Any]) -> None:
    """Take out of both trees what no Strategy decides: stored metadata, admission, allocation."""
    for tree in (want, got):
        for name in ("managedFields", "resourceVersion", "creationTimestamp", "uid"):
            tree.get("metadata", {}).pop(name, None)
        if tree.get("metadata", {}).get("finalizers") in (
            ["kubernetes.io/pvc-protection"],
            ["kubernetes.io/pv-protection"],
            ["kubernetes.io/vac-protection"],
        ):
            del tree["metadata"]["finalizers"]
    spec, got_spec = want.get("spec"), got.get("spec")
    if resource.kind == "Pod" and isinstance(spec, dict) and isinstance(got_spec, dict):
        forgive_pod_admission(body.get("spec") or {}, spec, got_spec)
    if resource.kind == "Node":
        for tree in (want, got):
            tree["metadata"].pop("annotations", None)
            taints = tree.get("spec", {}).get("taints") or []
            tree.setdefault("spec", {})["taints"] = [t for t in taints if t["key"] != "node.kubernetes.io/not-ready"]
    if resource.kind == "ResourceClaim" and "reservedFor" not in want.get("status", {}):
        remove(got, "status.reservedFor")  # A controller forgets Pods that do not exist.
    want.get("metadata", {}).pop("selfLink", None)
    got.get("metadata", {}).pop("selfLink", None)
    if resource.kind == "Service":
        for tree in (want, got):
            for name in ("clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies", "ipFamilyPolicy"):
                tree.get("spec", {}).pop(name, None)
            remove(tree, "spec.ports.*.nodePort")
    if resource.kind == "PersistentVolumeClaim":
        for tree in (want, got):
            remove(tree, "spec.storageClassName")
    if resource.kind == "CertificateSigningRequest":
        for name in ("username", "groups", "extra", "uid"):
            remove(want, f"spec.{name}")
            remove(got, f"spec.{name}")
    if resource.kind == "ServiceAccount":
        for tree in (want, got):
            remove(tree, "metadata.annotations")


def forgive_pod_admission(given: dict[str, Any], want: dict[str, Any], got: dict[str, Any]) -> None:
    for tree in (want, got):
        tolerations = [
            item
            for item in tree.get("tolerations") or []
            if not (
                item.get("key") in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
                and item.get("tolerationSeconds") == 300
            )
        ]
        tree["tolerations"] = tolerations
        tree["volumes"] = [v for v in tree.get("volumes") or [] if not v["name"].startswith("kube-api-access-")]
        for name in ("containers", "initContainers", "ephemeralContainers"):
            for container in tree.get(name) or []:
                mounts = [m for m in container.get("volumeMounts") or [] if m.get("mountPath") != _KUBE_API_ACCESS]
                container["volumeMounts"] = mounts
        for name in ("priority", "preemptionPolicy", "serviceAccount", "serviceAccountName"):
            if name not in given:
                tree.pop(name, None)


@functools.cache
def scenarios() -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    found = []
    for file in sorted((GOLDEN / "scenarios").glob("*.yaml")):
        if file.name.startswith(_OTHER_FILES):
            continue
        expected = json.loads((GOLDEN / "expected" / f"{file.stem}.json").read_text())
        for scenario in yaml.load(file.read_text(), Loader=yaml.CSafeLoader):
            found.append((file.stem, scenario, expected[scenario["name"]]))
    return found


@pytest.mark.parametrize(
    ("scenario", "answers"),
    [pytest.param(scenario, answers, id=f"{file}: {scenario['name']}") for file, scenario, answers in scenarios()],
)
def test_objects_are_defaulted_checked_and_changed_as_recorded(
    scenario: dict[str, Any], answers: list[dict[str, Any]]
) -> None:
    wrong = [outcome for outcome in Conversation(scenario, answers).outcomes() if outcome.differences]

    assert wrong == []


def main(words: list[str]) -> None:
    """Print what differs, and the score."""
    steps = right = 0
    kinds: dict[str, list[int]] = {}
    for file, scenario, answers in scenarios():
        if words and not any(word in file for word in words):
            continue
        for outcome in Conversation(scenario, answers).outcomes():
            steps += 1
            right += not outcome.differences
            tally = kinds.setdefault(file, [0, 0])
            tally[0] += 1
            tally[1] += not outcome.differences
            if outcome.differences:
                print(f"{file}: {scenario['name']}: step {outcome.step} {outcome.do}")
                for line in outcome.differences[:4]:
                    print("    " + line[:1200])
    for file, (all_steps, good) in sorted(kinds.items()):
        print(f"{file}: {good}/{all_steps}")
    print(f"{right} of {steps} steps")


if __name__ == "__main__":
    main(sys.argv[1:])
