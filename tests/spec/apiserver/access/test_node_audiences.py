"""For whom a kubelet may ask tokens: the audiences that a Pod's volumes, and the drivers of their storage, are for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from haven.api import scheme
from haven.api.authentication import v1 as authentication
from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import apierrors, serialization
from haven.apiserver.admission.interface import CREATE, AdmissionRequest, Objects
from haven.apiserver.admission.noderestriction import NodeRestriction
from haven.apiserver.authorization.abac import AlwaysDeny
from haven.apiserver.authorization.interface import Authorizer
from haven.apiserver.request import UserInfo

NODE = UserInfo("system:node:n", groups=("system:nodes", "system:authenticated"))
DRIVER = {"metadata": {"name": "d"}, "spec": {"tokenRequests": [{"audience": "vault"}]}}
OLD_DRIVER = {"metadata": {"name": "file.csi.azure.com"}, "spec": {"tokenRequests": [{"audience": "vault"}]}}
CLAIM = {"metadata": {"name": "c"}, "spec": {"volumeName": "v"}}
CLAIMED = {"persistentVolumeClaim": {"claimName": "c"}}
PROJECTED = {"projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}}
REFUSAL = 'serviceaccounts "default" is forbidden: '
UNKNOWN_CLAIM = 'error validating audience "vault": persistentvolumeclaim "c" not found'
UNKNOWN_VOLUME = 'error validating audience "vault": persistentvolume "v" not found'
UNKNOWN_DRIVER = 'error validating audience "vault": csidriver.storage.k8s.io "d" not found'
NOT_ALLOWED = (
    'audience "vault" not found in pod spec volume, system:node:n is not authorized to request tokens for this audience'
)


class Stored:
    """Objects by kind and name."""

    def __init__(self, *objects: Any) -> None:
        self._objects = {(type(obj), obj.metadata.name): obj for obj in objects}

    def get(self, resource: scheme.Resource[Any], _namespace: str, name: str) -> Any:
        return self._objects.get((resource.type, name))


async def ask(volumes: list[dict[str, Any]], *objects: Any) -> str:
    """Return why a kubelet does not get a token for the audience `vault`, "" if it does."""
    spec = {"nodeName": "n", "containers": [], "volumes": [{"name": "x", **volume} for volume in volumes]}
    pod = serialization.convert({"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": spec}, core.Pod)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    wanted = {"spec": {"audiences": ["vault"], "boundObjectRef": bound}}
    request = AdmissionRequest(
        CREATE,
        scheme.resource_of(core.ServiceAccount),
        "token",
        "a",
        "default",
        NODE,
        object=serialization.convert(wanted, authentication.TokenRequest),
    )
    plugin = NodeRestriction(cast("Objects", Stored(pod, *objects)), cast("Authorizer", AlwaysDeny()))
    try:
        await plugin.admit(request)
    except apierrors.Forbidden as error:
        return error.message.removeprefix(REFUSAL)
    return ""


def volume(**source: Any) -> core.PersistentVolume:
    return serialization.convert({"metadata": {"name": "v"}, "spec": source}, core.PersistentVolume)


def driver(tree: dict[str, Any]) -> storage.CSIDriver:
    return serialization.convert(tree, storage.CSIDriver)


@pytest.mark.parametrize(
    ("volumes", "objects", "why"),
    [
        ([PROJECTED], (), ""),
        ([{"csi": {"driver": "d"}}], (driver(DRIVER),), ""),
        ([{"csi": {"driver": "d"}}], (), UNKNOWN_DRIVER),
        ([{"csi": {"driver": "d"}}, PROJECTED], (), ""),
        ([{"azureFile": {"secretName": "s", "shareName": "f"}}], (driver(OLD_DRIVER),), ""),
        ([{"emptyDir": {}}], (driver(DRIVER),), NOT_ALLOWED),
        ([CLAIMED], (), UNKNOWN_CLAIM),
        ([CLAIMED], (serialization.convert(CLAIM, core.PersistentVolumeClaim),), UNKNOWN_VOLUME),
    ],
)
async def test_a_kubelet_gets_tokens_for_whom_the_volumes_of_a_pod_are_for(
    volumes: list[dict[str, Any]], objects: tuple[Any, ...], why: str
) -> None:
    assert await ask(volumes, *objects) == why


@pytest.mark.parametrize(
    ("source", "drivers", "why"),
    [
        ({"csi": {"driver": "d", "volumeHandle": "h"}}, (DRIVER,), ""),
        ({"csi": {"driver": "d", "volumeHandle": "h"}}, (), UNKNOWN_DRIVER),
        ({"azureFile": {"secretName": "s", "shareName": "f"}}, (OLD_DRIVER,), ""),
        ({"nfs": {"server": "s", "path": "/"}}, (DRIVER,), NOT_ALLOWED),
    ],
)
async def test_the_way_leads_over_claims_and_volumes_to_drivers(
    source: dict[str, Any], drivers: tuple[dict[str, Any], ...], why: str
) -> None:
    claim = serialization.convert(CLAIM, core.PersistentVolumeClaim)

    assert await ask([CLAIMED], claim, volume(**source), *map(driver, drivers)) == why
