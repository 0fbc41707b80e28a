"""lightkube: a Service finds the Pods that are ready, and only those."""

from lightkube.codecs import load_all_yaml
from lightkube.resources.core_v1 import Pod
from lightkube.resources.discovery_v1 import EndpointSlice

from haven.testing import Cluster

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec: {containers: [{name: main, image: example.org/web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec: {containers: [{name: main, image: example.org/web}]}
"""


def test_an_unready_pod_gets_no_traffic(haven_cluster: Cluster) -> None:
    client = haven_cluster.client("lightkube")
    for obj in load_all_yaml(MANIFEST):
        client.create(obj, namespace="default")
    for name in ("one", "two"):
        client.wait(Pod, name, for_conditions=["Ready"], namespace="default")

    haven_cluster.pod("two").ready(False)

    def ready_pods() -> list[str]:
        slices = client.list(EndpointSlice, namespace="default", labels={"kubernetes.io/service-name": "web"})
        return [end.targetRef.name for one in slices for end in one.endpoints or () if end.conditions.ready]

    haven_cluster.wait_until(lambda: ready_pods() == ["one"])
