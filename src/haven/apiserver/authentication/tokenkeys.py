"""Signing keys of service account tokens, and the documents by which others verify such tokens.

A key's id is the SHA-256 of its public key in DER, as upstream has it, so keys may be carried over from there.
Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

__all__ = ["ALGORITHM", "JWKS_PATH", "OPENID_CONFIGURATION_PATH", "BadToken", "SigningKeys", "VerificationKey"]

ALGORITHM = "RS256"
OPENID_CONFIGURATION_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"


class BadToken(ValueError):
    """A token's form or signature is wrong."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that tokens may be signed with."""

    id: str
    key: RSAKey


class SigningKeys:
    """The key that signs new tokens, and it and older ones that verify them."""

    def __init__(self, signing_key_pem: bytes, verification_keys_pem: Sequence[bytes] = ()) -> None:
        self._signing_key = _signing_key(signing_key_pem)
        private: Any = self._signing_key.private_key
        publics = [private.public_key()]
        for pem in verification_keys_pem:
            public = serialization.load_pem_public_key(pem)
            if not isinstance(public, rsa.RSAPublicKey):
                raise ValueError("service account tokens are verified with RSA keys")
            publics.append(public)
        self._signing_key_id = key_id(publics[0])
        self._verification = {
            key_id(public): RSAKey.import_key(
                public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            )
            for public in publics
        }

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token that says `claims`."""
        payload = orjson.dumps(claims, option=orjson.OPT_SORT_KEYS)
        header = {"alg": ALGORITHM, "kid": self._signing_key_id}
        return jws.serialize_compact(header, payload, self._signing_key, algorithms=[ALGORITHM])

    def verify(self, token: str) -> dict[str, Any]:
        """Return what a token says; raise BadToken if none of the keys signed it."""
        header = _part(token, 0)
        wanted = header.get("kid") or ""
        keys = list(self._verification.values()) if not wanted else [self._verification.get(wanted)]
        for key in keys:
            if key is None:
                continue
            try:
                payload = jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
            except (JoseError, ValueError):
                continue
            return _claims(payload)
        raise BadToken("invalid signature, no keys found" if wanted else "invalid signature")

    def openid_configuration(self, issuer: str, jwks_uri: str) -> bytes:
        """Return the document that tells where the keys are."""
        return orjson.dumps(
            {
                "issuer": issuer,
                "jwks_uri": jwks_uri,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
            }
        )

    def jwks(self) -> bytes:
        """Return the public keys as a JSON Web Key Set."""
        keys = [
            {"use": "sig", "kty": "RSA", "kid": id, "alg": ALGORITHM, "n": public["n"], "e": public["e"]}
            for id, key in self._verification.items()
            for public in [key.as_dict(private=False)]
        ]
        return orjson.dumps({"keys": keys})


@lru_cache(maxsize=4)
def _signing_key(pem: bytes) -> RSAKey:
    """Return a private key; it is wanted several times at every start, and to check its numbers takes long."""
    try:
        result = RSAKey.import_key(pem)
    except ValueError as error:
        if isinstance(serialization.load_pem_private_key(pem, password=None), rsa.RSAPrivateKey):
            raise
        raise ValueError("service account tokens are signed with an RSA key") from error
    if not isinstance(result.private_key, rsa.RSAPrivateKey):
        raise ValueError("service account tokens are signed with an RSA key")
    return result


def key_id(public: rsa.RSAPublicKey) -> str:
    """Return a key's id: the unpadded base64url of its DER's SHA-256."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def unverified_claims(token: str) -> dict[str, Any]:
    """Return what a token says, without any trust; raise BadToken if it is not of a token's form."""
    return _part(token, 1)


def _part(token: str, index: int) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("not a token")
    encoded = parts[index]
    try:
        return _claims(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError as error:
        raise BadToken("not a token") from error


def _claims(payload: bytes) -> dict[str, Any]:
    claims = orjson.loads(payload)
    if not isinstance(claims, dict):
        raise BadToken("not a token")
    return claims
