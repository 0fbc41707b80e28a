from __future__ import annotations

import json
from typing import Any

from tests.spec.controllers.world import START, World

from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.controllers.serviceaccounttokens import TYPE, LegacyTokenCleaner, TokensController, secret_names

DAY = 24 * 3600


def an_account(**fields: Any) -> core.ServiceAccount:
    metadata = meta.ObjectMeta(name="a", namespace="default", uid="uid-a")  # type: ignore[arg-type]
    return core.ServiceAccount(metadata=metadata, **fields)


def a_secret(name: str = "s", *, account: str = "a", age_days: int = 0, **labels: str) -> core.Secret:
    return core.Secret(
        metadata=meta.ObjectMeta(
            name=name,
            namespace="default",
            annotations={"kubernetes.io/service-account.name": account},
            labels={f"kubernetes.io/legacy-token-{key.replace('_', '-')}": day for key, day in labels.items()},
            creation_timestamp=times.format_time(START - age_days * DAY),
        ),
        type=TYPE,
    )


def a_world(*objects: Any) -> World:
    world = World()
    world.put(*objects)
    world.start(lambda wiring: TokensController(wiring, sign=lambda claims: json.dumps(claims), root_ca_pem="CA"))
    return world


def secrets(world: World) -> list[str]:
    return [secret.metadata.name for secret in world.all(core.Secret)]


def test_a_secret_of_an_account_is_filled() -> None:
    world = a_world(an_account(), a_secret())

    secret = world.get(core.Secret, "default", "s")
    assert (secret.data["ca.crt"], secret.data["namespace"]) == (b"CA", b"default")
    assert secret.metadata.annotations["kubernetes.io/service-account.uid"] == "uid-a"
    assert json.loads(secret.data["token"]) == {
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:default:a",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "s",
        "kubernetes.io/serviceaccount/service-account.name": "a",
        "kubernetes.io/serviceaccount/service-account.uid": "uid-a",
    }


def test_a_token_that_is_there_stays() -> None:
    secret = a_secret()
    secret.data = {"token": b"mine"}

    world = a_world(an_account(), secret)

    assert world.get(core.Secret, "default", "s").data["token"] == b"mine"


def test_a_secret_without_its_account_is_deleted() -> None:
    world = a_world(an_account(), a_secret(account="nobody"), a_secret("mine"))
    assert secrets(world) == ["mine"]

    world.remove(core.ServiceAccount, "default", "a")
    world.settle()

    assert secrets(world) == []


def test_other_secrets_are_left_alone() -> None:
    world = a_world(core.Secret(metadata=meta.ObjectMeta(name="other", namespace="default"), type="Opaque"))

    assert world.get(core.Secret, "default", "other").data == {}


def test_an_account_forgets_a_secret_that_is_gone() -> None:
    references = [core.ObjectReference(name="s"), core.ObjectReference(name="t")]
    world = a_world(an_account(secrets=references), a_secret(), a_secret("t"))

    world.remove(core.Secret, "default", "s")
    world.settle()

    assert [each.name for each in world.get(core.ServiceAccount, "default", "a").secrets] == ["t"]


def after_cleaner(*objects: Any, tracked_days: int = 400, days: int = 0) -> World:
    since = times.format_time(START - tracked_days * DAY)[:10]
    tracking = core.ConfigMap(
        metadata=meta.ObjectMeta(name="kube-apiserver-legacy-service-account-token-tracking", namespace="kube-system"),
        data={"since": since},
    )
    world = World()
    world.put(tracking, an_account(secrets=[core.ObjectReference(name="s")]), *objects)
    world.start(LegacyTokenCleaner)
    world.wait(days * DAY)
    return world


def label(world: World) -> str | None:
    return world.get(core.Secret, "default", "s").metadata.labels.get("kubernetes.io/legacy-token-invalid-since")  # type: ignore[no-any-return]


def test_an_old_token_that_nobody_uses_is_marked_and_a_year_later_deleted() -> None:
    world = after_cleaner(a_secret(age_days=500))
    assert label(world) == "2026-01-01"

    world.wait(364 * DAY)
    assert secrets(world) == ["s"]
    world.wait(3 * DAY)

    assert secrets(world) == []


def test_a_token_that_is_young_used_mounted_or_handmade_is_kept() -> None:
    volume = core.Volume(name="v", secret=core.SecretVolumeSource(secret_name="s"))
    pod = core.Pod(metadata=meta.ObjectMeta(name="p", namespace="default"), spec=core.PodSpec(volumes=[volume]))

    assert label(after_cleaner(a_secret(age_days=300))) is None
    assert label(after_cleaner(a_secret(age_days=500, last_used="2025-12-01"))) is None
    assert label(after_cleaner(a_secret(age_days=500), pod)) is None
    assert label(after_cleaner(a_secret(age_days=500), tracked_days=300)) is None
    handmade = after_cleaner(a_secret("handmade", age_days=500))
    assert handmade.get(core.Secret, "default", "handmade").metadata.labels == {}


def test_every_way_to_name_a_secret_is_known() -> None:
    reference = core.SecretKeySelector(name="env", key="k")
    container = core.Container(
        name="c",
        env=[core.EnvVar(name="E", value_from=core.EnvVarSource(secret_key_ref=reference))],
        env_from=[core.EnvFromSource(secret_ref=core.SecretEnvSource(name="envfrom"))],
    )
    projection = core.VolumeProjection(secret=core.SecretProjection(name="projected"))
    driver = core.CSIVolumeSource(driver="d", node_publish_secret_ref=core.LocalObjectReference(name="csi"))
    spec = core.PodSpec(
        containers=[container],
        image_pull_secrets=[core.LocalObjectReference(name="pull")],
        volumes=[
            core.Volume(name="a", secret=core.SecretVolumeSource(secret_name="volume")),
            core.Volume(name="b", projected=core.ProjectedVolumeSource(sources=[projection])),
            core.Volume(name="c", csi=driver),
            core.Volume(name="d", azure_file=core.AzureFileVolumeSource(secret_name="azure")),
        ],
    )

    assert secret_names(core.Pod(spec=spec)) == {"env", "envfrom", "projected", "csi", "pull", "volume", "azure"}
