"""An operator: every Shop gets a Deployment, whose readiness shows in the Shop's status."""

import kopf
from kubernetes import client, config


@kopf.on.startup()
def connect(**_):
    config.load_kube_config()


@kopf.on.create("example.org", "v1", "shops", id="deploy")
def deploy(name, namespace, spec, **_):
    labels = {"shop": name}
    container = {"name": "main", "image": "example.org/shop:1"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": spec.get("counters", 1),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    kopf.adopt(deployment)
    client.AppsV1Api().create_namespaced_deployment(namespace, deployment)


@kopf.on.event("apps", "v1", "deployments", labels={"shop": kopf.PRESENT})
def report(name, namespace, status, **_):
    if status.get("readyReplicas"):
        patch = {"status": {"open": status["readyReplicas"]}}
        client.CustomObjectsApi().patch_namespaced_custom_object_status(
            "example.org", "v1", namespace, "shops", name, patch
        )
