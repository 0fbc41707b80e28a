"""Odd credentials: chains of certificates, headers that come twice, identities that proxies and webhooks tell."""

from __future__ import annotations

import datetime
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from haven.api.authentication import v1 as authentication
from haven.apimachinery.apierrors import Forbidden, Unauthorized
from haven.apiserver.authentication.bearer import BearerTokens, TokenUnion
from haven.apiserver.authentication.configuration import parse_authentication
from haven.apiserver.authentication.impersonation import Impersonation
from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.authentication.jwt import check_claims
from haven.apiserver.authentication.serviceaccounts import ServiceAccountTokens
from haven.apiserver.authentication.statictokens import StaticTokens, parse_token_file
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.authentication.tokenwebhook import WebhookTokens
from haven.apiserver.authentication.union import RequestAuthenticator
from haven.apiserver.authentication.x509 import ClientCertificates, RequestHeaders
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.authorization.webhook import WebhookAuthorizer
from haven.apiserver.clientcertificates import PresentedCertificate
from haven.apiserver.decisions import Decisions
from haven.apiserver.expressions import CelEngine
from haven.apiserver.http.messages import Headers
from haven.apiserver.request import Request, RequestInfo, UserInfo
from haven.apiserver.reviews.identityreviews import TokenReviews
from haven.clock import FakeClock

Key = ec.EllipticCurvePrivateKey
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def a_request(*headers: tuple[str, str]) -> Request:
    found = Headers(list(headers))
    return Request("GET", "/api", {}, found.by_name, repeated_headers=found.repeated)


def certificate(
    clock: FakeClock, name: str | None, issuer: tuple[x509.Certificate, Key] | None = None, *, ca: bool = False
) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(clock.now_seconds(), datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def der(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)


def with_issuers(leaf: x509.Certificate, *issuers: x509.Certificate) -> PresentedCertificate:
    found = PresentedCertificate(der(leaf))
    found.issuers = tuple(map(der, issuers))
    return found


def test_a_certificate_may_bring_those_that_lead_to_the_authority(clock: FakeClock) -> None:
    root = certificate(clock, "root", ca=True)
    between = certificate(clock, "between", root, ca=True)
    leaf = certificate(clock, "jane", between)
    impostor = certificate(clock, "impostor", root)  # No authority: what it signs is not believed.
    forged = certificate(clock, "admin", impostor)
    authenticator = ClientCertificates([root[0]], clock)

    user = authenticator.identify(with_issuers(leaf[0], between[0]))
    assert user is not None
    assert user.name == "jane"
    for bad in (der(certificate(clock, "joe", between)[0]), with_issuers(forged[0], impostor[0])):
        for _ in range(2):  # Refusals are remembered as well.
            with pytest.raises(Unauthorized, match="unknown authority"):
                authenticator.identify(bad)


def test_an_extension_that_must_be_understood_and_is_not_refuses_a_certificate(clock: FakeClock) -> None:
    root, key = certificate(clock, "root", ca=True)
    now = datetime.datetime.fromtimestamp(clock.now_seconds(), datetime.UTC)
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(odd, critical=True)
        .sign(key, hashes.SHA256())
    )

    with pytest.raises(Unauthorized, match="critical extension"):
        ClientCertificates([root], clock).identify(der(leaf))


async def test_who_comes_with_a_certificate_that_names_nobody_is_not_anonymous(clock: FakeClock) -> None:
    clients, proxies = certificate(clock, "clients", ca=True), certificate(clock, "proxies", ca=True)
    headers = RequestHeaders([proxies[0]], clock)
    authenticator = RequestAuthenticator(
        [headers, ClientCertificates([clients[0]], clock)], before_anonymous=headers.check
    )
    request = a_request()
    request.client_certificate = der(certificate(clock, None, clients)[0])

    with pytest.raises(Unauthorized, match=r"^Unauthorized$"):
        await authenticator.authenticate(request)
    request.client_certificate = der(certificate(clock, "front-proxy-client", proxies)[0])
    with pytest.raises(Unauthorized):  # A proxy that speaks for nobody is no client either.
        await authenticator.authenticate(request)
    assert (await authenticator.authenticate(a_request())).name == "system:anonymous"


async def test_what_a_proxy_says_is_read_as_http_means_it(clock: FakeClock) -> None:
    proxies = certificate(clock, "proxies", ca=True)
    request = a_request(
        ("X-Remote-User", "jane"),
        ("X-Remote-User", "eve"),
        ("X-Remote-Group", ""),
        ("X-Remote-Group", "devs"),
        ("X-Remote-Extra-Acme.com%2Fproject", "p"),
        ("X-Remote-Extra-Bad%zz", "q"),
    )
    request.client_certificate = der(certificate(clock, "front-proxy-client", proxies)[0])

    user = await RequestHeaders([proxies[0]], clock).authenticate(request)

    assert user == UserInfo("jane", "", ("devs",), {"acme.com/project": ("p",), "bad%zz": ("q",)})


def test_the_first_of_a_headers_values_counts() -> None:
    found = Headers([("Authorization", "Bearer a"), ("authorization", "Bearer b"), ("Accept", "x")])

    assert found.by_name == {"authorization": "Bearer a", "accept": "x"}
    assert found.repeated == {"authorization": ["Bearer a", "Bearer b"]}


async def test_the_anonymous_user_of_a_certificate_is_not_among_the_authenticated(clock: FakeClock) -> None:
    clients = certificate(clock, "clients", ca=True)
    request = a_request()
    request.client_certificate = der(certificate(clock, "system:anonymous", clients)[0])

    user = await RequestAuthenticator([ClientCertificates([clients[0]], clock)]).authenticate(request)

    assert user.groups == ()


async def test_a_space_too_many_before_a_token_is_told(clock: FakeClock) -> None:
    tokens = StaticTokens(parse_token_file("secret,jane,7\n"), ["api"])
    authenticator = RequestAuthenticator([BearerTokens(TokenUnion([tokens]), ["api"], clock)])
    request = a_request(("Authorization", "Bearer  secret"))

    assert (await authenticator.authenticate(request)).name == "system:anonymous"
    assert request.warnings == [
        "the provided Authorization header contains extra space before the bearer token, and is ignored"
    ]


class Refusing:
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def authenticate_token(self, _token: str, _audiences: tuple[str, ...]) -> TokenIdentity | None:
        raise Unauthorized(", ".join(self.texts))


async def test_a_token_review_reads_its_token_as_a_request_would() -> None:
    tokens = TokenUnion([Refusing("one"), StaticTokens(parse_token_file("secret,jane,7\n"), ["api"]), Refusing("two")])
    reviews = TokenReviews(tokens, RequestAuthenticator([]), ["api"])

    async def review(token: str, **status: Any) -> authentication.TokenReviewStatus:
        asked = authentication.TokenReview(
            spec=authentication.TokenReviewSpec(token=token), status=authentication.TokenReviewStatus(**status)
        )
        return (await reviews.create(a_request(), asked)).status

    found = await review("secret\n", error="as sent")
    assert (found.authenticated, found.user.username, found.error) == (True, "jane", "as sent")
    assert (await review("other", authenticated=True)).error == "[invalid bearer token, one, two]"
    assert (await review(" secret")).user.username == "system:anonymous"


CONFIG: dict[str, Any] = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthenticationConfiguration",
    "jwt": [
        {
            "issuer": {"url": "https://issuer", "audiences": ["haven"]},
            "claimMappings": {
                "username": {"expression": "claims.sub"},
                "groups": {"expression": "claims.?roles.orValue([])"},
                "uid": {"claim": "uid"},
                "extra": [{"key": "acme.com/team", "valueExpression": "claims.?acme__dot__com__slash__team"}],
            },
            "claimValidationRules": [
                {"claim": "hd", "requiredValue": "acme.com"},
                {"expression": "claims.exp - claims.iat <= 86400", "message": "too long a life"},
            ],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')"}],
        }
    ],
}
CLAIMS = {"sub": "jane", "uid": "7", "hd": "acme.com", "iat": 10, "exp": 100.5}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"sub": 5},
            "oidc: error evaluating username claim expression: username claim expression must return a string",
        ),
        ({"sub": ""}, "oidc: empty username via CEL expression is not allowed"),
        (
            {"roles": ["a", 5]},
            "oidc: error evaluating group claim expression: expression must return a string or a list of strings",
        ),
        ({"uid": {}}, 'oidc: parse uid claim "uid": json: cannot unmarshal object into Go value of type string'),
        ({"hd": 5}, "oidc: parse claim hd: json: cannot unmarshal number into Go value of type string"),
        ({"hd": "b"}, "oidc: required claim hd value does not match. Got = b, want = acme.com"),
        (
            {"exp": 90000},
            "oidc: error evaluating claim validation expression: validation expression"
            " 'claims.exp - claims.iat <= 86400' failed: too long a life",
        ),
        (
            {"sub": "system:a"},
            "oidc: error evaluating user info validation rule: validation expression"
            " '!user.username.startsWith('system:')' failed: ",
        ),
    ],
)
def test_what_is_wrong_with_claims_is_told_as_upstream_tells_it(change: dict[str, Any], complaint: str) -> None:
    engine = CelEngine()
    config = {**CONFIG, "jwt": [{**CONFIG["jwt"][0]}]}
    config["jwt"][0]["claimMappings"] = {**CONFIG["jwt"][0]["claimMappings"], "extra": []}
    mapping = parse_authentication(orjson.dumps(config), engine).issuers[0].mapping

    with pytest.raises(Unauthorized) as caught:
        mapping.user({**CLAIMS, **change})
    assert caught.value.message == complaint


def test_numbers_of_claims_are_doubles_and_empty_groups_are_left_out() -> None:
    config = {**CONFIG, "jwt": [{**CONFIG["jwt"][0]}]}
    config["jwt"][0]["claimMappings"] = {
        **CONFIG["jwt"][0]["claimMappings"],
        "extra": [{"key": "acme.com/team", "valueExpression": "claims.acme__dot__com__slash__team"}],
    }
    mapping = parse_authentication(orjson.dumps(config), CelEngine()).issuers[0].mapping

    user = mapping.user({**CLAIMS, "roles": ["", "a"], "acme.com/team": "red"})

    assert user == UserInfo("jane", "7", ("a",), {"acme.com/team": ("red",)})


@pytest.mark.parametrize(
    ("claims", "complaint"),
    [
        ({"iss": "i", "aud": "x", "exp": 2000}, 'expected audience "haven" got ["x"]'),
        ({"iss": "i", "aud": "haven", "exp": 1}, "token is expired (Token Expiry: 1970-01-01 00:00:01 +0000 UTC)"),
        (
            {"iss": "i", "aud": "haven", "exp": "2"},
            'failed to unmarshal claims: json: invalid number literal, trying to unmarshal "\\"2\\"" into Number',
        ),
        (
            {"iss": "i", "aud": 5},
            "failed to unmarshal claims: json: cannot unmarshal number into Go struct field idToken.aud of type"
            " []string",
        ),
        ({"iss": "i", "_claim_names": {"groups": "a"}}, "source does not exist"),
        ({"iss": "j"}, 'id token issued by a different provider, expected "i" got "j"'),
    ],
)
def test_a_token_is_checked_in_the_order_of_go_oidc(claims: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        check_claims(claims, issuer="i", audiences=["haven"], now=1000.0)
    assert caught.value.message == f"oidc: verify token: oidc: {complaint}"


def test_a_clock_a_minute_ahead_is_forgiven() -> None:
    claims = {"iss": "i", "aud": ["haven"], "exp": 2000, "nbf": 1060}
    check_claims(claims, issuer="i", audiences=["haven"], now=1000.0)

    with pytest.raises(Unauthorized, match="before the nbf"):
        check_claims({**claims, "nbf": 1061}, issuer="i", audiences=["haven"], now=1000.0)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"{nonsense", "couldn't get version/kind; json parse error: invalid character 'n' looking for"),
        (b'{"kind":"Pod","apiVersion":"v1"}', "converting (v1.Pod) to (v1.TokenReview): unknown conversion"),
        (
            b'{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1beta1"}',
            "converting (v1beta1.TokenReview) to (v1.TokenReview): unknown conversion",
        ),
    ],
)
async def test_what_a_token_webhook_should_not_answer(clock: FakeClock, answer: bytes, complaint: str) -> None:
    async def post(_body: bytes) -> bytes:
        return answer

    tokens = WebhookTokens(post, clock, version="v1", ttl_seconds=1, implicit_audiences=["api"])

    with pytest.raises(Unauthorized) as caught:
        await tokens.wait_token("t", ("api",))
    assert caught.value.message.startswith(complaint)


async def test_a_token_webhook_is_told_the_audiences_and_its_silence_is_no_error(clock: FakeClock) -> None:
    asked: list[Any] = []

    async def post(body: bytes) -> bytes:
        asked.append(orjson.loads(body))
        return b"{}"

    tokens = WebhookTokens(post, clock, version="v1", ttl_seconds=1, implicit_audiences=["api"])

    assert await tokens.wait_token("t", ("api",)) is None
    assert asked[0]["spec"] == {"token": "t", "audiences": ["api"]}
    assert asked[0]["status"] == {"user": {}}


class May:
    """Allows some verbs."""

    def __init__(self, *verbs: str) -> None:
        self.verbs = set(verbs)

    def authorize(self, attributes: Attributes) -> Decision:
        return Decision(Verdict.ALLOW if attributes.verb in self.verbs else Verdict.NO_OPINION)

    def rules_for(self, _user: UserInfo, _namespace: str) -> Rules:
        return Rules()


async def test_the_way_of_impersonating_that_was_right_last_time_words_the_refusal() -> None:
    may = May("impersonate")
    counts = Decisions()
    impersonation = Impersonation(may, counts)

    def acting() -> Request:
        request = a_request(("Impersonate-User", "bob"))
        request.user = UserInfo("jane")
        request.info = RequestInfo("get", "/api/v1/pods", is_resource=True, resource="pods", version="v1")
        return request

    may.verbs = set()
    with pytest.raises(Forbidden, match="cannot impersonate-on:user-info:get"):
        await impersonation.apply(acting())
    may.verbs = {"impersonate"}
    assert await impersonation.apply(acting()) is not None
    may.verbs = set()
    with pytest.raises(Forbidden, match='cannot impersonate resource "users"'):
        await impersonation.apply(acting())
    assert {key: sum(found.counts) for key, found in counts.impersonations.items()} == {
        ("", "denied"): 2,
        ("legacy", "allowed"): 1,
    }
    assert {key: sum(found.counts) for key, found in counts.impersonation_checks.items()} == {
        ("user-info", "denied"): 3,
        ("legacy", "denied"): 2,
        ("legacy", "allowed"): 1,
    }


async def test_questions_to_a_webhook_are_counted_with_what_came_of_them(clock: FakeClock) -> None:
    answers = [b'{"status":{"allowed":true}}', b"nonsense", b"{}"]

    async def post(_body: bytes) -> bytes:
        return answers.pop(0)

    condition = CelEngine().compile("request.user != 'root' && request.extra['a'][0] == 'b'", "request")
    conditional = WebhookAuthorizer(post, clock, name="c", match_conditions=[condition])
    webhook = WebhookAuthorizer(post, clock, name="w")

    verdicts = [(await webhook.decide(Attributes(UserInfo(name), "get"))).verdict for name in ("jane", "eve", "joe")]
    await conditional.decide(Attributes(UserInfo("root"), "get"))
    failed = await conditional.decide(Attributes(UserInfo("jane"), "get"))

    assert verdicts == [Verdict.ALLOW, Verdict.NO_OPINION, Verdict.NO_OPINION]
    assert {result: sum(found.counts) for result, found in webhook.counts.results.items()} == {"success": 2, "error": 1}
    assert webhook.counts.fail_open == {"error": 1}
    assert (conditional.counts.exclusions, conditional.counts.condition_errors) == (1, 1)
    assert failed.error == f"cel evaluation error: expression '{condition.text}' resulted in error: no such key: a"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"exp": "soon"}, "go-jose/go-jose/jwt: expected number value to unmarshal NumericDate"),
        ({"aud": 5}, "go-jose/go-jose/jwt: expected string or array value to unmarshal to Audience"),
        ({"kubernetes.io": "x"}, "json: cannot unmarshal string into Go value of type serviceaccount.kubernetes"),
        ({"kubernetes.io": None}, "resource name may not be empty"),
    ],
)
def test_an_account_token_of_odd_claims_is_refused(
    objects: Any, clock: FakeClock, change: dict[str, Any], complaint: str
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    keys = SigningKeys(key.private_bytes(encoding, form, serialization.NoEncryption()))
    token = keys.sign({"iss": "i", "aud": ["api"], **change})

    with pytest.raises(Unauthorized) as caught:
        ServiceAccountTokens(keys, objects, clock, issuers=["i"], api_audiences=["api"]).authenticate_token(
            token, ("api",)
        )
    assert caught.value.message == complaint
