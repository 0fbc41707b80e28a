"""The atomic writer and what content volumes show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spec.kubelet.pods import a_container, a_pod

from haven.api.certificates.v1beta1 import ClusterTrustBundle, ClusterTrustBundleSpec
from haven.api.core.v1 import (
    ClusterTrustBundleProjection,
    ConfigMap,
    ConfigMapProjection,
    ConfigMapVolumeSource,
    KeyToPath,
    PodSecurityContext,
    ProjectedVolumeSource,
    Secret,
    SecretVolumeSource,
    SecurityContext,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from haven.apimachinery.meta import LabelSelector, ObjectMeta
from haven.kubelet.volumes.atomicwriter import FileProjection, InvalidPath, write_payload
from haven.kubelet.volumes.content import MissingContent, VolumeSources, payload
from haven.kubelet.volumes.hostpath import HostPathError, check_host_path


def files(**contents: str) -> dict[str, FileProjection]:
    return {name.replace("__", "/"): FileProjection(text.encode(), 0o644) for name, text in contents.items()}


def shown(directory: Path) -> dict[str, str]:
    result: dict[str, str] = {}
    for below, _, names in os.walk(directory, followlinks=True):
        for name in names:
            path = Path(below, name)
            relative = str(path.relative_to(directory))
            if not relative.startswith(".."):
                result[relative] = path.read_text()
    return result


def test_files_appear_through_links_and_change_at_once(tmp_path: Path) -> None:
    assert write_payload(tmp_path, files(a="1", d__b="2"))
    first = os.readlink(tmp_path / "..data")

    assert shown(tmp_path) == {"a": "1", "d/b": "2"}
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert write_payload(tmp_path, files(a="3"))
    assert shown(tmp_path) == {"a": "3"}
    assert os.readlink(tmp_path / "..data") != first
    assert not (tmp_path / first).exists()


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    write_payload(tmp_path, files(a="1"))
    before = os.readlink(tmp_path / "..data")

    assert not write_payload(tmp_path, files(a="1"))

    assert os.readlink(tmp_path / "..data") == before


@pytest.mark.parametrize("path", ["../x", "a/../b", "/abs", "..dot/x", ""])
def test_paths_that_leave_the_volume_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidPath):
        write_payload(tmp_path, {path: FileProjection(b"", 0o644)})

    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "d/c", "d/e"]), st.sampled_from(["1", "2"])), max_size=4))
def test_the_volume_always_shows_the_last_payload(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str, str]]
) -> None:
    directory = tmp_path_factory.mktemp("volume")

    for step in steps:
        write_payload(directory, {path: FileProjection(text.encode(), 0o600) for path, text in step.items()})
        assert shown(directory) == step


def test_chosen_keys_get_their_paths_and_modes() -> None:
    volume = Volume(
        name="v",
        config_map=ConfigMapVolumeSource(
            name="c",
            default_mode=0o600,
            items=[KeyToPath(key="a", path="x/y", mode=0o400), KeyToPath(key="b", path="b")],
        ),
    )
    found = ConfigMap(data={"a": "1", "skipped": "0"}, binary_data={"b": b"\xff"})

    result = payload(a_pod(), volume, VolumeSources(config_maps={"c": found}))

    assert result == {"x/y": FileProjection(b"1", 0o400), "b": FileProjection(b"\xff", 0o600)}


def test_a_missing_object_or_key_holds_the_pod_back_unless_optional() -> None:
    volume = Volume(name="v", secret=SecretVolumeSource(secret_name="s"))
    with pytest.raises(MissingContent, match='secret "s" not found'):
        payload(a_pod(), volume, VolumeSources())

    volume.secret.items = [KeyToPath(key="no", path="p")]
    with pytest.raises(MissingContent, match="references non-existent secret key: no"):
        payload(a_pod(), volume, VolumeSources(secrets={"s": Secret(data={})}))

    volume.secret.optional = True
    assert payload(a_pod(), volume, VolumeSources()) == {}
    assert payload(a_pod(), volume, VolumeSources(secrets={"s": Secret(data={})})) == {}


def test_a_token_is_readable_by_the_pods_user_only() -> None:
    token = ServiceAccountTokenProjection(path="token", expiration_seconds=600)
    config_map = ConfigMapProjection(name="ca", items=[KeyToPath(key="ca.crt", path="ca.crt")])
    volume = Volume(
        name="v",
        projected=ProjectedVolumeSource(
            sources=[VolumeProjection(service_account_token=token), VolumeProjection(config_map=config_map)]
        ),
    )
    sources = VolumeSources(
        config_maps={"ca": ConfigMap(data={"ca.crt": "PEM"})}, tokens={("", 600, "token"): "secret"}
    )

    plain = payload(a_pod(), volume, sources)
    owned = payload(a_pod(a_container(security_context=SecurityContext(run_as_user=7))), volume, sources)
    grouped = payload(a_pod(security_context=PodSecurityContext(fs_group=5)), volume, sources)

    assert plain == {"token": FileProjection(b"secret", 0o644), "ca.crt": FileProjection(b"PEM", 0o644)}
    assert owned["token"] == FileProjection(b"secret", 0o600, 7)
    assert grouped["token"].mode == 0o600


def test_host_paths_are_checked_and_made(tmp_path: Path) -> None:
    assert check_host_path(str(tmp_path / "any"), "") == tmp_path / "any"
    assert check_host_path(str(tmp_path / "d" / "e"), "DirectoryOrCreate").is_dir()
    assert check_host_path(str(tmp_path / "f"), "FileOrCreate").is_file()
    for type_, text in (("File", "is not a file"), ("Socket", "is not a socket file")):
        with pytest.raises(HostPathError, match=text):
            check_host_path(str(tmp_path / "d"), type_)


def a_bundle(name: str, text: str, signer: str = "", **labels: str) -> ClusterTrustBundle:
    spec = ClusterTrustBundleSpec(signer_name=signer, trust_bundle=text)
    return ClusterTrustBundle(metadata=ObjectMeta(name=name, labels=labels), spec=spec)


def pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def showing(**fields: object) -> Volume:
    projection = ClusterTrustBundleProjection(path="ca.pem", **fields)  # type: ignore[arg-type]
    source = ProjectedVolumeSource(sources=[VolumeProjection(cluster_trust_bundle=projection)])
    return Volume(name="v", projected=source)


def test_a_volume_shows_each_authority_of_the_chosen_bundles_once() -> None:
    bundles = [
        a_bundle("one", "Ours:\n" + pem("BBBB") + pem("AAAA")),
        a_bundle("s:a", pem("AAAA") + pem("CCCC"), "s/a", live="yes"),
        a_bundle("s:b", pem("AAAA"), "s/a", live="yes"),
        a_bundle("s:c", pem("DDDD"), "s/a", live="no"),
    ]
    sources = VolumeSources(bundles=bundles)
    chosen = LabelSelector(match_labels={"live": "yes"})

    named = payload(a_pod(), showing(name="one"), sources)
    signed = payload(a_pod(), showing(signer_name="s/a", label_selector=chosen), sources)

    assert named["ca.pem"].content.decode() == pem("AAAA") + pem("BBBB")
    assert signed["ca.pem"].content.decode() == pem("AAAA") + pem("CCCC")


def test_a_bundle_that_is_missing_holds_the_pod_up_unless_it_is_optional() -> None:
    sources = VolumeSources(bundles=[])

    assert payload(a_pod(), showing(name="one", optional=True), sources)["ca.pem"].content == b""
    with pytest.raises(MissingContent, match="matched zero ClusterTrustBundles"):
        payload(a_pod(), showing(signer_name="s/a"), sources)
    with pytest.raises(MissingContent, match='"one" not found'):
        payload(a_pod(), showing(name="one"), sources)
    with pytest.raises(MissingContent, match="not supported in static kubelet mode"):
        payload(a_pod(), showing(name="one"), VolumeSources())
