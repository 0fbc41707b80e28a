"""Who sent a request: certificates, tokens, nobody, and acting as others."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from haven.api.authentication import v1 as authentication
from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.apimachinery.apierrors import BadRequest, Forbidden, Invalid, Unauthorized
from haven.apiserver.authentication.bearer import BearerTokens, TokenUnion
from haven.apiserver.authentication.bootstraptokens import BootstrapTokens
from haven.apiserver.authentication.impersonation import Impersonation
from haven.apiserver.authentication.serviceaccounts import ServiceAccountTokens
from haven.apiserver.authentication.statictokens import StaticTokens, parse_token_file
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.authentication.union import RequestAuthenticator
from haven.apiserver.authentication.x509 import ClientCertificates, RequestHeaders
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.request import Request, RequestInfo, UserInfo
from haven.apiserver.reviews.identityreviews import TokenReviews
from haven.apiserver.reviews.tokenrequests import TokenRequests, default_token_request
from haven.clock import FakeClock

ISSUER = "https://kubernetes.default.svc"


def a_request(path: str = "/api", **headers: str) -> Request:
    return Request("GET", path, {}, {key.replace("_", "-"): value for key, value in headers.items()})


@pytest.fixture(scope="module")
def keys() -> SigningKeys:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return SigningKeys(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def account(objects: Any) -> core.ServiceAccount:
    metadata = meta.ObjectMeta(namespace="ns", name="bot", uid="u-1")
    return objects.put(core.ServiceAccount(metadata=metadata))


async def a_token(objects: Any, keys: SigningKeys, clock: FakeClock, **spec: Any) -> authentication.TokenRequest:
    asked = authentication.TokenRequest(spec=authentication.TokenRequestSpec(**spec))
    default_token_request(asked)
    return await TokenRequests(keys, objects, clock).create(a_request(), "ns", "bot", asked)


class Certificates:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        self.ca = (
            self._builder(name, name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.datetime.fromtimestamp(self.clock.now_seconds(), datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def issue(self, name: str, *groups: str, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH) -> bytes:
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(subject, self.ca.subject, key.public_key())
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.DER)


async def test_a_client_certificate_names_the_user_and_its_groups(clock: FakeClock) -> None:
    certificates = Certificates(clock)
    request = a_request()
    request.client_certificate = certificates.issue("jane", "devs", "ops")

    user = await RequestAuthenticator([ClientCertificates([certificates.ca], clock)]).authenticate(request)

    assert (user.name, user.groups) == ("jane", ("devs", "ops", "system:authenticated"))
    assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")


async def test_a_certificate_of_another_authority_or_for_servers_or_too_old_is_refused(clock: FakeClock) -> None:
    certificates, others = Certificates(clock), Certificates(clock)
    authenticator = ClientCertificates([certificates.ca], clock)
    good = certificates.issue("jane")
    assert authenticator.identify(good) is not None

    for bad in (others.issue("jane"), certificates.issue("jane", usage=ExtendedKeyUsageOID.SERVER_AUTH)):
        with pytest.raises(Unauthorized):
            authenticator.identify(bad)
    await clock.advance(7200)
    with pytest.raises(Unauthorized, match="expired"):
        authenticator.identify(good)


async def test_a_proxys_certificate_lets_it_speak_for_users_and_nobody_elses_does(clock: FakeClock) -> None:
    proxies, clients = Certificates(clock), Certificates(clock)
    authenticator = RequestHeaders([proxies.ca], clock, allowed_names=["front-proxy-client"])
    request = a_request(x_remote_user="jane", x_remote_group="devs", x_remote_extra_scopes="view")

    request.client_certificate = proxies.issue("front-proxy-client")
    assert await authenticator.authenticate(request) == UserInfo("jane", "", ("devs",), {"scopes": ("view",)})
    request.client_certificate = clients.issue("front-proxy-client")
    assert await authenticator.authenticate(request) is None
    request.client_certificate = proxies.issue("another")
    with pytest.raises(Unauthorized, match="not in the allowed list"):
        await authenticator.authenticate(request)
    request.client_certificate = None
    assert await authenticator.authenticate(request) is None


async def test_requests_without_credentials_are_anonymous_and_wrong_credentials_are_refused(clock: FakeClock) -> None:
    users = parse_token_file('secret,jane,7,"devs,ops"\n')
    tokens = BearerTokens(TokenUnion([StaticTokens(users, [ISSUER])]), [ISSUER], clock)
    authenticator = RequestAuthenticator([tokens])

    assert (await authenticator.authenticate(a_request())).groups == ("system:unauthenticated",)
    assert (await authenticator.authenticate(a_request(authorization="Basic YTpi"))).name == "system:anonymous"
    jane = await authenticator.authenticate(a_request(authorization="bearer secret"))
    assert jane == UserInfo("jane", "7", ("devs", "ops", "system:authenticated"))
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(a_request(authorization="Bearer nonsense"))


async def test_anonymous_requests_can_be_limited_to_paths() -> None:
    authenticator = RequestAuthenticator([], anonymous_paths={"/livez"})

    assert (await authenticator.authenticate(a_request("/livez"))).name == "system:anonymous"
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(a_request("/api"))


async def test_a_token_request_makes_a_token_that_authenticates_the_account(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    issued = await a_token(objects, keys, clock)
    tokens = ServiceAccountTokens(keys, objects, clock)

    identity = tokens.authenticate_token(issued.status.token, (ISSUER,))

    assert identity is not None
    assert identity.user.name == "system:serviceaccount:ns:bot"
    assert identity.user.uid == "u-1"
    assert identity.user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns")
    assert identity.audiences == (ISSUER,)
    assert issued.spec.expiration_seconds == 3600
    assert issued.status.expiration_timestamp == times.format_time(clock.now_seconds() + 3600)


async def test_a_token_ends_when_it_expires_and_when_its_account_is_replaced(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    token = (await a_token(objects, keys, clock)).status.token
    tokens = ServiceAccountTokens(keys, objects, clock)

    objects.put(core.ServiceAccount(metadata=meta.ObjectMeta(namespace="ns", name="bot", uid="u-2")))
    with pytest.raises(Unauthorized, match=r"service account UID \(u-2\) does not match claim \(u-1\)"):
        tokens.authenticate_token(token, (ISSUER,))
    objects.put(account)
    assert tokens.authenticate_token(token, (ISSUER,)) is not None
    await clock.advance(3600 + 61)
    with pytest.raises(Unauthorized, match="service account token has expired"):
        tokens.authenticate_token(token, (ISSUER,))


async def test_a_token_bound_to_a_pod_names_it_and_ends_with_it(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    pod = core.Pod(metadata=meta.ObjectMeta(namespace="ns", name="p", uid="pod-1"))
    pod.spec.service_account_name, pod.spec.node_name = "bot", "n1"
    objects.put(pod)
    objects.put(core.Node(metadata=meta.ObjectMeta(name="n1", uid="node-1")))
    reference = authentication.BoundObjectReference(kind="Pod", api_version="v1", name="p", uid="pod-1")
    issued = await a_token(objects, keys, clock, bound_object_ref=reference, expiration_seconds=3607)
    tokens = ServiceAccountTokens(keys, objects, clock)

    identity = tokens.authenticate_token(issued.status.token, (ISSUER,))

    assert identity is not None
    prefix = "authentication.kubernetes.io/"
    assert identity.user.extra[prefix + "pod-name"] == ("p",)
    assert identity.user.extra[prefix + "node-name"] == ("n1",)
    assert identity.user.extra[prefix + "node-uid"] == ("node-1",)
    # The odd 3607 seconds are extended to a year, with a note once they are over.
    await clock.advance(4000)
    later = tokens.authenticate_token(issued.status.token, (ISSUER,))
    assert later is not None
    assert "authentication.k8s.io/stale-token" in later.audit_annotations
    objects.remove(pod)
    with pytest.raises(Unauthorized, match="invalidated"):
        tokens.authenticate_token(issued.status.token, (ISSUER,))


async def test_token_requests_are_checked(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    with pytest.raises(Invalid, match="may not specify a duration less than 10 minutes"):
        await a_token(objects, keys, clock, expiration_seconds=599)
    reference = authentication.BoundObjectReference(kind="ConfigMap", api_version="v1", name="c")
    with pytest.raises(BadRequest, match="cannot bind token to object of type /v1, Kind=ConfigMap"):
        await a_token(objects, keys, clock, bound_object_ref=reference)


async def test_a_token_for_another_audience_is_no_use_but_a_review_knows_it(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    token = (await a_token(objects, keys, clock, audiences=["elsewhere"])).status.token
    tokens = ServiceAccountTokens(keys, objects, clock)
    authenticator = RequestAuthenticator([BearerTokens(TokenUnion([tokens]), [ISSUER], clock)])

    with pytest.raises(Unauthorized):
        await authenticator.authenticate(a_request(authorization=f"Bearer {token}"))
    review = authentication.TokenReview(spec=authentication.TokenReviewSpec(token=token, audiences=["elsewhere"]))
    answer = await TokenReviews(TokenUnion([tokens]), authenticator, [ISSUER]).create(a_request(), review)
    assert answer.status.authenticated
    assert answer.status.audiences == ["elsewhere"]
    assert answer.status.user.groups[-1] == "system:authenticated"
    own = authentication.TokenReview(spec=authentication.TokenReviewSpec(token=token))
    refused = await TokenReviews(TokenUnion([tokens]), authenticator, [ISSUER]).create(a_request(), own)
    assert not refused.status.authenticated
    assert refused.status.error


async def test_a_forged_token_is_refused(
    objects: Any, keys: SigningKeys, clock: FakeClock, account: core.ServiceAccount
) -> None:
    token = (await a_token(objects, keys, clock)).status.token
    header, payload, signature = token.split(".")
    tokens = ServiceAccountTokens(keys, objects, clock)
    other = "A" if signature[10] != "A" else "B"
    forged = f"{header}.{payload}.{signature[:10]}{other}{signature[11:]}"

    with pytest.raises(Unauthorized):
        tokens.authenticate_token(forged, (ISSUER,))


async def test_a_bootstrap_token_works_until_it_expires(objects: Any, clock: FakeClock) -> None:
    objects.put(
        core.Secret(
            metadata=meta.ObjectMeta(namespace="kube-system", name="bootstrap-token-abcdef"),
            type="bootstrap.kubernetes.io/token",
            data={
                "token-id": b"abcdef",
                "token-secret": b"0123456789abcdef",
                "usage-bootstrap-authentication": b"true",
                "auth-extra-groups": b"system:bootstrappers:workers",
                "expiration": times.format_time(clock.now_seconds() + 60).encode(),
            },
        )
    )
    tokens = BootstrapTokens(objects, clock, [ISSUER])

    identity = tokens.authenticate_token("abcdef.0123456789abcdef", (ISSUER,))

    assert identity is not None
    assert identity.user == UserInfo(
        "system:bootstrap:abcdef", groups=("system:bootstrappers", "system:bootstrappers:workers")
    )
    assert tokens.authenticate_token("abcdef.0123456789abcdeX", (ISSUER,)) is None
    await clock.advance(60)
    assert tokens.authenticate_token("abcdef.0123456789abcdef", (ISSUER,)) is None


class Allowing:
    """Allows a set of (verb, resource, name)."""

    def __init__(self, *allowed: tuple[str, str, str]) -> None:
        self.allowed = set(allowed)

    def authorize(self, attributes: Attributes) -> Decision:
        asked = {(attributes.verb, attributes.resource, name) for name in (attributes.name, "*")}
        return Decision(Verdict.ALLOW if asked & self.allowed else Verdict.NO_OPINION)

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules()


def impersonating(**headers: str) -> Request:
    request = a_request("/api/v1/namespaces/ns/pods", **headers)
    request.user = UserInfo("boss")
    request.info = RequestInfo("list", request.path, True, "api", "", "v1", "ns", "pods")
    return request


async def test_impersonation_needs_a_user_name() -> None:
    request = impersonating(impersonate_group="devs")

    with pytest.raises(BadRequest) as refused:
        await Impersonation(Allowing()).apply(request)

    assert refused.value.message == (
        'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"devs"}, Extra:map[string][]string(nil)}'
        " without impersonating a user name"
    )


async def test_the_old_verb_allows_impersonation_and_the_headers_go() -> None:
    request = impersonating(impersonate_user="jane", impersonate_group="devs", accept="x")
    request.repeated_headers = {"impersonate-group": ["devs", "ops"]}
    rights = Allowing(("impersonate", "users", "jane"), ("impersonate", "groups", "*"))

    acting = await Impersonation(rights).apply(request)

    assert acting is not None
    assert acting.constraint == ""
    assert acting.user == UserInfo("jane", groups=("devs", "ops", "system:authenticated"))
    assert dict(request.headers) == {"accept": "x"}


async def test_constrained_impersonation_needs_both_the_identity_and_the_action() -> None:
    rights = [("impersonate:user-info", "users", "jane"), ("impersonate-on:user-info:list", "pods", "")]

    acting = await Impersonation(Allowing(*rights)).apply(impersonating(impersonate_user="jane"))

    assert acting is not None
    assert acting.constraint == "impersonate:user-info"
    with pytest.raises(Forbidden, match='cannot impersonate-on:user-info:list resource "pods"'):
        await Impersonation(Allowing(rights[0])).apply(impersonating(impersonate_user="jane"))
    with pytest.raises(Forbidden, match='cannot impersonate:user-info resource "users"'):
        await Impersonation(Allowing(rights[1])).apply(impersonating(impersonate_user="jane"))


async def test_the_way_that_was_open_last_is_tried_first() -> None:
    rights = [("impersonate", "users", "*"), ("impersonate", "groups", "*")]
    constrained = [(f"impersonate{suffix}", what, "*") for suffix, what in ((":user-info", "users"), ("", "users"))]
    impersonation = Impersonation(Allowing(*rights, *constrained, ("impersonate-on:user-info:list", "pods", "")))

    first = await impersonation.apply(impersonating(impersonate_user="jane"))
    with_masters = impersonating(impersonate_user="jane", impersonate_group="system:masters")
    second = await impersonation.apply(with_masters)
    third = await impersonation.apply(impersonating(impersonate_user="jane"))

    assert [one.constraint for one in (first, second, third) if one] == ["impersonate:user-info", "", ""]


async def test_a_service_account_comes_with_its_groups() -> None:
    request = impersonating(impersonate_user="system:serviceaccount:ns:bot")

    acting = await Impersonation(Allowing(("impersonate", "serviceaccounts", "bot"))).apply(request)

    assert acting is not None
    assert acting.user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
