from __future__ import annotations

from joserfc import jws
from joserfc.jwk import OctKey
from tests.spec.controllers.world import START, World

from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.controllers.bootstraptokens import BootstrapSigner, TokenCleaner, detached_signature


def a_token(id: str = "abcdef", *, expires_seconds: int | None = None, signing: bool = True) -> core.Secret:
    data = {"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": str(signing).lower()}
    if expires_seconds is not None:
        data["expiration"] = times.format_time(START + expires_seconds)
    return core.Secret(
        metadata=meta.ObjectMeta(name=f"bootstrap-token-{id}", namespace="kube-system"),
        type="bootstrap.kubernetes.io/token",
        data={key: value.encode() for key, value in data.items()},
    )


def info() -> core.ConfigMap:
    return core.ConfigMap(
        metadata=meta.ObjectMeta(name="cluster-info", namespace="kube-public"), data={"kubeconfig": "hello"}
    )


def signatures(world: World) -> list[str]:
    return sorted(world.get(core.ConfigMap, "kube-public", "cluster-info").data.keys() - {"kubeconfig"})


def test_a_signature_can_be_checked_by_anybody_who_has_the_token() -> None:
    token = detached_signature("hello", "abcdef", "0123456789abcdef")

    header, _, signature = token.split(".")
    key = OctKey.import_key("0123456789abcdef")
    checked = jws.deserialize_compact(f"{header}.aGVsbG8.{signature}", key, algorithms=["HS256"])
    assert checked.headers() == {"alg": "HS256", "kid": "abcdef"}


def test_cluster_info_is_signed_with_every_token_for_that_purpose_while_it_lasts() -> None:
    world = World()
    world.put(info(), a_token(expires_seconds=60), a_token("other0", signing=False))
    world.start(BootstrapSigner)
    assert signatures(world) == ["jws-kubeconfig-abcdef"]

    world.put(a_token("fedcba"))
    world.wait(61)

    assert signatures(world) == ["jws-kubeconfig-fedcba"]


def test_a_changed_cluster_info_is_signed_anew() -> None:
    world = World()
    world.put(info(), a_token())
    world.start(BootstrapSigner)

    world.change(core.ConfigMap, "kube-public", "cluster-info", lambda each: each.data.update(kubeconfig="new"))
    world.settle()

    data = world.get(core.ConfigMap, "kube-public", "cluster-info").data
    assert data["jws-kubeconfig-abcdef"] == detached_signature("new", "abcdef", "0123456789abcdef")


def test_a_token_goes_when_its_time_is_up() -> None:
    world = World()
    world.put(a_token(expires_seconds=60), a_token("stayer"))
    world.start(TokenCleaner)

    world.wait(59)
    assert len(world.all(core.Secret)) == 2
    world.wait(2)

    assert [each.metadata.name for each in world.all(core.Secret)] == ["bootstrap-token-stayer"]
