"""POST …/serviceaccounts/{name}/token: a new token for a service account.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from haven.api import scheme
from haven.api.authentication import v1 as authentication
from haven.api.core import v1 as core
from haven.apimachinery import fielderrors, times
from haven.apimachinery.apierrors import BadRequest, Conflict, GroupKind, GroupResource, Invalid, NotFound
from haven.apimachinery.fielderrors import ErrorList, Path
from haven.apimachinery.names import UID
from haven.apiserver.admission.interface import Objects
from haven.apiserver.authentication.serviceaccounts import (
    DEFAULT_ISSUER,
    EXTENDED_EXPIRATION_SECONDS,
    WARN_ONLY_EXPIRATION_SECONDS,
    Bound,
    claims,
)
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import Request
from haven.clock import Clock

__all__ = ["TokenRequests", "default_token_request", "validate_token_request"]

DEFAULT_EXPIRATION_SECONDS = 3600
EXPIRATION_SECONDS_MIN = 600
EXPIRATION_SECONDS_MAX = 1 << 32
_KIND = GroupKind("authentication.k8s.io", "TokenRequest")


def default_token_request(request: authentication.TokenRequest) -> None:
    """Fill in what the client left open."""
    if request.spec.expiration_seconds is None:
        request.spec.expiration_seconds = DEFAULT_EXPIRATION_SECONDS


def validate_token_request(request: authentication.TokenRequest) -> ErrorList:
    """Return what is wrong with a request that has its defaults."""
    seconds = request.spec.expiration_seconds or 0
    path = Path("spec", "expirationSeconds")
    errors: ErrorList = []
    if seconds < EXPIRATION_SECONDS_MIN:
        errors.append(fielderrors.invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > EXPIRATION_SECONDS_MAX:
        errors.append(fielderrors.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    return errors


class TokenRequests:
    """Issues tokens. `expiration_seconds_max` of 0 leaves their life as long as asked for."""

    def __init__(
        self,
        keys: SigningKeys,
        objects: Objects,
        clock: Clock,
        *,
        issuer: str = DEFAULT_ISSUER,
        api_audiences: Sequence[str] = (DEFAULT_ISSUER,),
        expiration_seconds_max: int = 0,
        extend_expiration: bool = True,
    ) -> None:
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._issuer = issuer
        self._api_audiences = tuple(api_audiences)
        self._expiration_seconds_max = expiration_seconds_max
        self._extend_expiration = extend_expiration
        self._accounts = scheme.resource_of(core.ServiceAccount)
        self._pods = scheme.resource_of(core.Pod)
        self._secrets = scheme.resource_of(core.Secret)
        self._nodes = scheme.resource_of(core.Node)

    async def create(
        self, request: Request, namespace: str, name: str, asked: authentication.TokenRequest
    ) -> authentication.TokenRequest:
        """Return `asked`, which has its defaults, with its token; the warnings of `request` tell what was changed."""
        metadata = asked.metadata
        if metadata.name and metadata.name != name:
            raise _invalid(name, "name", metadata.name, "must match the service account name if specified")
        if metadata.namespace and metadata.namespace != namespace:
            text = "must match the service account namespace if specified"
            raise _invalid(name, "namespace", metadata.namespace, text)
        account = await self._objects.get_fresh(self._accounts, namespace, name)
        if account is None:
            raise NotFound.of(self._accounts.group_resource, name)
        if metadata.uid and metadata.uid != account.metadata.uid:
            raise Conflict.of(
                GroupResource(_KIND.group, _KIND.kind),
                name,
                f"the UID in the token request ({metadata.uid}) does not match the UID of the service account"
                f" ({account.metadata.uid})",
            )
        now = self._clock.now_seconds()
        metadata.name, metadata.namespace = account.metadata.name, account.metadata.namespace
        metadata.uid = account.metadata.uid
        metadata.creation_timestamp = times.format_time(now)
        spec = asked.spec
        spec.audiences = spec.audiences or list(self._api_audiences)
        asked.status = authentication.TokenRequestStatus()
        errors = validate_token_request(asked)
        if errors:
            raise Invalid.of(_KIND, "", errors)

        bound = await self._bound(namespace, name, spec.bound_object_ref)
        seconds = spec.expiration_seconds or 0
        if 0 < self._expiration_seconds_max < seconds:
            request.warnings.append(
                f"requested expiration of {seconds} seconds shortened to {self._expiration_seconds_max} seconds"
            )
            seconds = spec.expiration_seconds = self._expiration_seconds_max
        lives, warn_after = seconds, 0
        if (
            self._extend_expiration
            and bound.pod is not None
            and seconds == WARN_ONLY_EXPIRATION_SECONDS
            and set(spec.audiences) <= set(self._api_audiences)
        ):
            lives, warn_after = EXTENDED_EXPIRATION_SECONDS, seconds
        token_id = str(uuid.uuid4())
        token = self._keys.sign(
            claims(
                account,
                bound,
                issuer=self._issuer,
                audiences=spec.audiences,
                now=now,
                expiration_seconds=lives,
                warn_after_seconds=warn_after,
                token_id=token_id,
            )
        )
        request.audit_annotations["authentication.kubernetes.io/issued-credential-id"] = f"JTI={token_id}"
        asked.status = authentication.TokenRequestStatus(
            token=token, expiration_timestamp=times.format_time(now + seconds)
        )
        return asked

    async def _bound(
        self, namespace: str, account_name: str, reference: authentication.BoundObjectReference | None
    ) -> Bound:
        if reference is None:
            return Bound()
        group, _, version = reference.api_version.rpartition("/")
        if "/" in group:
            group = version = ""  # What cannot be read counts as nothing said.
        if group or reference.kind not in ("Pod", "Node", "Secret"):
            raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={reference.kind}")
        if not reference.name:
            raise BadRequest("Name parameter required.")
        if reference.kind == "Pod":
            pod = await self._objects.get_fresh(self._pods, namespace, reference.name)
            if pod is None:
                raise NotFound.of(self._pods.group_resource, reference.name)
            if pod.spec.service_account_name != account_name:
                raise BadRequest(
                    f'cannot bind token for serviceaccount "{account_name}" to pod running with different'
                    " serviceaccount name."
                )
            _check_uid(reference, pod.metadata.uid)
            return Bound(pod=pod, node=self._node_of(pod))
        if reference.kind == "Secret":
            secret = await self._objects.get_fresh(self._secrets, namespace, reference.name)
            if secret is None:
                raise NotFound.of(self._secrets.group_resource, reference.name)
            _check_uid(reference, secret.metadata.uid)
            return Bound(secret=secret)
        node = await self._objects.get_fresh(self._nodes, "", reference.name)
        if node is None:
            raise NotFound.of(self._nodes.group_resource, reference.name)
        _check_uid(reference, node.metadata.uid)
        return Bound(node=node)

    def _node_of(self, pod: core.Pod) -> core.Node | None:
        """Return the pod's node; one without UID if the node does not exist."""
        name = pod.spec.node_name
        if not name:
            return None
        node = self._objects.get(self._nodes, "", name)
        if node is None:
            node = core.Node()
            node.metadata.name = name
        return node


def _check_uid(reference: authentication.BoundObjectReference, uid: UID) -> None:
    if reference.uid and reference.uid != uid:
        raise Conflict.of(
            GroupResource("", reference.kind),
            reference.name,
            f"the UID in the bound object reference ({reference.uid}) does not match the UID in record. The object"
            " might have been deleted and then recreated",
        )


def _invalid(name: str, field: str, value: str, text: str) -> Invalid:
    return Invalid.of(_KIND, name, [fielderrors.invalid(Path("metadata", field), value, text)])
