"""A plain controller with the official client: it restarts the Deployments of a ConfigMap that changed."""

import threading

from kubernetes import client, watch

ANNOTATION = "example.org/config-version"


def run(api_client: client.ApiClient, stop: threading.Event) -> None:
    """Follow ConfigMaps labelled restart=true; list again whenever the watch is too old."""
    core, apps = client.CoreV1Api(api_client), client.AppsV1Api(api_client)
    version = ""
    while not stop.is_set():
        if not version:
            found = core.list_namespaced_config_map("default", label_selector="restart=true")
            version = found.metadata.resource_version
            for configmap in found.items:
                restart(apps, configmap)
        watcher = watch.Watch()
        try:
            for event in watcher.stream(
                core.list_namespaced_config_map,
                "default",
                label_selector="restart=true",
                resource_version=version,
                timeout_seconds=1,
            ):
                version = event["object"].metadata.resource_version
                if event["type"] != "DELETED":
                    restart(apps, event["object"])
        except client.ApiException as error:
            if error.status != 410:
                raise
            version = ""


def restart(apps: client.AppsV1Api, configmap: client.V1ConfigMap) -> None:
    """Note the ConfigMap's content in the Deployment of its name."""
    text = str(sorted((configmap.data or {}).items()))
    patch = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: text}}}}}
    try:
        apps.patch_namespaced_deployment(configmap.metadata.name, "default", patch)
    except client.ApiException as error:
        if error.status != 404:
            raise
