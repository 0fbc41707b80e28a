"""An admission webhook as a function, called by the API server over TLS like any other."""

import pytest

from haven.testing import Admission, Cluster, Denied, Forbidden


def a_pod(image: str) -> dict[str, object]:
    containers = [{"name": "main", "image": image}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}}


@pytest.fixture
def policy(haven_cluster: Cluster) -> None:
    @haven_cluster.mutating_webhook("pods", ["CREATE"])
    def use_the_mirror(admission: Admission) -> None:
        for container in admission.object["spec"]["containers"]:
            container["image"] = container["image"].replace("docker.io/", "mirror.example.org/")

    @haven_cluster.validating_webhook("pods", ["CREATE"])
    def only_the_mirror(admission: Admission) -> None:
        for container in admission.object["spec"]["containers"]:
            if not container["image"].startswith("mirror.example.org/"):
                raise Denied(f"{container['image']} is not from mirror.example.org")


@pytest.mark.usefixtures("policy")
def test_images_come_from_the_mirror(haven_cluster: Cluster) -> None:
    created = haven_cluster.create(a_pod("docker.io/library/nginx"))

    assert created["spec"]["containers"][0]["image"] == "mirror.example.org/library/nginx"


@pytest.mark.usefixtures("policy")
def test_others_are_refused(haven_cluster: Cluster) -> None:
    with pytest.raises(Forbidden, match="is not from mirror"):
        haven_cluster.create(a_pod("elsewhere.example.org/nginx"))
