"""ServiceAccount: every pod runs as a service account, and gets its token, certificates and pull secrets.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver import podreferences
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden
from haven.apiserver.admission.lookups import impossible_name
from haven.apiserver.authentication.serviceaccounts import WARN_ONLY_EXPIRATION_SECONDS
from haven.clock import Clock

__all__ = ["ServiceAccount"]

DEFAULT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
ENFORCE_MOUNTABLE_SECRETS = "kubernetes.io/enforce-mountable-secrets"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
DEFAULT_ATTEMPTS = 10
"""How often the default account is looked for: a new namespace gets it a moment after it is created."""
RETRY_SECONDS = 0.1


class ServiceAccount:
    """Changes pods, then checks what they may refer to."""

    name = "ServiceAccount"
    resources = frozenset({GroupResource("", "pods")})
    is_steady = True

    def __init__(self, objects: Objects, clock: Clock, chance: random.Random) -> None:
        self._objects = objects
        self._clock = clock
        self._chance = chance
        self._accounts = scheme.resource_of(core.ServiceAccount)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.operation != CREATE or request.subresource:
            return
        pod: core.Pod = request.object
        if podreferences.MIRROR_ANNOTATION in pod.metadata.annotations:
            _check_mirror(request, pod)
            return
        spec = pod.spec
        if not spec.service_account_name:
            spec.service_account_name = spec.service_account or DEFAULT
        spec.service_account = spec.service_account_name
        account = await self._find(request, spec.service_account_name)
        if _automounts(account, pod):
            self._mount(pod)
        if not spec.image_pull_secrets:
            spec.image_pull_secrets = [
                core.LocalObjectReference(name=reference.name) for reference in account.image_pull_secrets
            ]
        _check_secrets(request, account, pod)

    async def validate(self, request: AdmissionRequest) -> None:
        pod: core.Pod = request.object
        if request.operation == UPDATE and request.subresource == "ephemeralcontainers":
            account = await self._find(request, pod.spec.service_account_name)
            if _enforces(account):
                _check_containers(request, account, "ephemeral container", pod.spec.ephemeral_containers)
            return
        if request.operation != CREATE or request.subresource:
            return
        if podreferences.MIRROR_ANNOTATION in pod.metadata.annotations:
            _check_mirror(request, pod)
            return
        account = await self._find(request, pod.spec.service_account_name)
        _check_secrets(request, account, pod)

    async def _find(self, request: AdmissionRequest, name: str) -> core.ServiceAccount:
        if not name:
            raise forbidden(request, f"no service account specified for pod {request.namespace}/{request.name}")
        account = self._objects.get(self._accounts, request.namespace, name)
        attempts = DEFAULT_ATTEMPTS if name == DEFAULT else 1
        while account is None and attempts:
            account = await self._objects.get_fresh(self._accounts, request.namespace, name)
            attempts -= 1
            if account is None and attempts:
                await self._clock.sleep(RETRY_SECONDS)
        if account is None:
            because = impossible_name(name) or f'serviceaccount "{name}" not found'
            raise forbidden(request, f"error looking up service account {request.namespace}/{name}: {because}")
        return account

    def _mount(self, pod: core.Pod) -> None:
        """Give every container that has nothing in the place a mount of the token, and the pod its volume."""
        present = next((volume.name for volume in pod.spec.volumes if volume.name.startswith(VOLUME_PREFIX)), None)
        name = present or VOLUME_PREFIX + "".join(self._chance.choice(_ALPHABET) for _ in range(5))
        mounted = False
        for container in (*pod.spec.init_containers, *(pod.spec.containers or ())):
            if not any(mount.mount_path == MOUNT_PATH for mount in container.volume_mounts):
                mount = core.VolumeMount(name=name, read_only=True, mount_path=MOUNT_PATH)
                container.volume_mounts = [*container.volume_mounts, mount]
                mounted = True
        if mounted and present is None:
            pod.spec.volumes = [*pod.spec.volumes, core.Volume(name=name, projected=_token_source())]


def _token_source() -> core.ProjectedVolumeSource:
    return core.ProjectedVolumeSource(
        default_mode=0o644,
        sources=[
            core.VolumeProjection(
                service_account_token=core.ServiceAccountTokenProjection(
                    path="token", expiration_seconds=WARN_ONLY_EXPIRATION_SECONDS
                )
            ),
            core.VolumeProjection(
                config_map=core.ConfigMapProjection(
                    name="kube-root-ca.crt", items=[core.KeyToPath(key="ca.crt", path="ca.crt")]
                )
            ),
            core.VolumeProjection(
                downward_api=core.DownwardAPIProjection(
                    items=[
                        core.DownwardAPIVolumeFile(
                            path="namespace",
                            field_ref=core.ObjectFieldSelector(api_version="v1", field_path="metadata.namespace"),
                        )
                    ]
                )
            ),
        ],
    )


def _automounts(account: core.ServiceAccount, pod: core.Pod) -> bool:
    if pod.spec.automount_service_account_token is not None:
        return pod.spec.automount_service_account_token
    return account.automount_service_account_token is not False


def _enforces(account: core.ServiceAccount) -> bool:
    return account.metadata.annotations.get(ENFORCE_MOUNTABLE_SECRETS) in _TRUE


def _check_mirror(request: AdmissionRequest, pod: core.Pod) -> None:
    if pod.spec.service_account_name:
        raise forbidden(request, "a mirror pod may not reference service accounts")
    if next(podreferences.secret_names(pod.spec), None) is not None:
        raise forbidden(request, "a mirror pod may not reference secrets")
    for volume in pod.spec.volumes:
        sources = volume.projected.sources if volume.projected is not None else None
        if any(source.service_account_token is not None for source in sources or ()):
            raise forbidden(request, "a mirror pod may not use ServiceAccountToken volume projections")


def _check_secrets(request: AdmissionRequest, account: core.ServiceAccount, pod: core.Pod) -> None:
    if not _enforces(account):
        return
    mountable = {reference.name for reference in account.secrets}
    for volume in pod.spec.volumes:
        if volume.secret is not None and volume.secret.secret_name not in mountable:
            raise _not_referenced(request, account, "volume with", volume.secret.secret_name)
    _check_containers(request, account, "init container", pod.spec.init_containers)
    _check_containers(request, account, "container", pod.spec.containers or [])
    pullable = {reference.name for reference in account.image_pull_secrets}
    for index, reference in enumerate(pod.spec.image_pull_secrets):
        if reference.name not in pullable:
            raise forbidden(
                request,
                f'imagePullSecrets[{index}].name="{reference.name}" is not allowed because service account'
                f" {account.metadata.name} does not reference that imagePullSecret",
            )


def _check_containers(
    request: AdmissionRequest,
    account: core.ServiceAccount,
    kind: str,
    containers: list[core.Container] | list[core.EphemeralContainer],
) -> None:
    mountable = {reference.name for reference in account.secrets}
    for container in containers:
        for where, secret in _container_secrets(container):
            if secret not in mountable:
                raise _not_referenced(request, account, f"{kind} {container.name} with {where} referencing", secret)


def _container_secrets(container: core.Container | core.EphemeralContainer) -> Iterator[tuple[str, str]]:
    for variable in container.env:
        if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
            yield f"envVar {variable.name}", variable.value_from.secret_key_ref.name
    for source in container.env_from:
        if source.secret_ref is not None:
            yield "envFrom", source.secret_ref.name


def _not_referenced(request: AdmissionRequest, account: core.ServiceAccount, what: str, secret: str) -> Exception:
    return forbidden(
        request,
        f'{what} secret.secretName="{secret}" is not allowed because service account {account.metadata.name}'
        " does not reference that secret",
    )
