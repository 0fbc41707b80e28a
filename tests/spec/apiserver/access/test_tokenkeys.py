"""Keys of service account tokens: what they sign is what any JWT library reads, and nothing else is believed."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from joserfc import jwk, jws

from haven.apiserver.authentication.tokenkeys import BadToken, SigningKeys

CLAIMS = {"sub": "system:serviceaccount:ns:bot", "aud": ["a"]}


def in_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def keys(private: rsa.RSAPrivateKey) -> SigningKeys:
    return SigningKeys(in_pem(private))


def signed(private: rsa.RSAPrivateKey, header: dict[str, Any]) -> str:
    text = f"{encoded(orjson.dumps(header))}.{encoded(orjson.dumps(CLAIMS))}"
    return f"{text}.{encoded(private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def test_a_token_is_read_by_a_jwt_library_with_the_published_keys(keys: SigningKeys) -> None:
    published = jwk.KeySet.import_key_set(orjson.loads(keys.jwks()))

    read = jws.deserialize_compact(keys.sign(CLAIMS), published, algorithms=["RS256"])

    assert orjson.loads(read.payload) == CLAIMS
    assert read.headers() == {"alg": "RS256", "kid": orjson.loads(keys.jwks())["keys"][0]["kid"]}


def test_a_token_without_a_key_id_is_tried_with_every_key(keys: SigningKeys, private: rsa.RSAPrivateKey) -> None:
    assert keys.verify(signed(private, {"alg": "RS256"})) == CLAIMS


def test_a_key_that_was_used_before_still_verifies(keys: SigningKeys, private: rsa.RSAPrivateKey) -> None:
    newer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    assert SigningKeys(in_pem(newer), [public]).verify(keys.sign(CLAIMS)) == CLAIMS
    with pytest.raises(BadToken, match="no keys found"):
        SigningKeys(in_pem(newer)).verify(keys.sign(CLAIMS))


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "RS512"}, {"alg": "HS256"}, {}, {"alg": "RS256", "crit": ["exp"], "exp": 1}]
)
def test_a_token_that_is_signed_in_another_way_is_not_believed(
    keys: SigningKeys, private: rsa.RSAPrivateKey, header: dict[str, Any]
) -> None:
    with pytest.raises(BadToken, match="error in cryptographic primitive"):
        keys.verify(signed(private, header))


def test_a_token_that_was_changed_or_is_none_is_not_believed(keys: SigningKeys) -> None:
    token = keys.sign(CLAIMS)
    head, _, tail = token.split(".")
    for bad in (
        f"{head}.{encoded(orjson.dumps({**CLAIMS, 'sub': 'root'}))}.{tail}", token[:-6], f"{token}!", f"{token}é",
        f"{head}..{tail}", "..", "a.b.c", "", token.replace(".", ""),
    ):  # fmt: skip
        with pytest.raises(BadToken):
            keys.verify(bad)


def test_a_key_that_is_damaged_or_of_another_kind_is_told_at_the_start(private: rsa.RSAPrivateKey) -> None:
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place = 100  # In the modulus.
    damaged = der[:place] + bytes([der[place] ^ 0x55]) + der[place + 1 :]
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(damaged) + b"-----END PRIVATE KEY-----\n"

    for bad in (pem, in_pem(ec.generate_private_key(ec.SECP256R1())), b"no key"):
        with pytest.raises(ValueError, match=r"."):
            SigningKeys(bad)


def test_a_key_that_is_still_being_made_is_asked_for_when_it_is_wanted(private: rsa.RSAPrivateKey) -> None:
    asked = []

    def make() -> bytes:
        asked.append(1)
        return in_pem(private)

    keys = SigningKeys(make)

    assert not asked
    assert keys.verify(keys.sign(CLAIMS)) == CLAIMS
    assert len(asked) == 1
