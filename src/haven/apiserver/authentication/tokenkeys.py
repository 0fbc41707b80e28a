"""Signing keys of service account tokens, and the documents by which others verify such tokens.

A key's id is the SHA-256 of its public key in DER, as upstream has it, so keys may be carried over from there.
Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["ALGORITHM", "JWKS_PATH", "OPENID_CONFIGURATION_PATH", "BadToken", "SigningKeys"]

ALGORITHM = "RS256"
OPENID_CONFIGURATION_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"
# RS256 is exactly this (RFC 7518, 3.3).
_PADDING, _HASH = padding.PKCS1v15(), hashes.SHA256()
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_WAYS: dict[str, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]] = {
    **{f"RS{bits}": (_PADDING, digest) for bits, digest in _HASHES.items()},
    **{f"PS{bits}": (padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest) for bits, digest in _HASHES.items()},
}
"""How tokens of other programs that have the key may be signed."""


class BadToken(ValueError):
    """A token's form or signature is wrong."""


@dataclass(frozen=True, slots=True)
class _Keys:
    private: rsa.RSAPrivateKey
    id: str
    publics: dict[str, rsa.RSAPublicKey]
    """Those that verify, by their ids."""


class SigningKeys:
    """The key that signs new tokens, and it and older ones that verify them.

    A signing key that is still being made is given as a function, which is called when the key is wanted.
    """

    def __init__(
        self, signing_key_pem: bytes | Callable[[], bytes], verification_keys_pem: Sequence[bytes] = ()
    ) -> None:
        self._signing_key_pem = signing_key_pem
        self._verification_keys_pem = verification_keys_pem
        self._read_keys = self._read() if isinstance(signing_key_pem, bytes) else None

    @property
    def _keys(self) -> _Keys:
        if self._read_keys is None:
            self._read_keys = self._read()
        return self._read_keys

    def _read(self) -> _Keys:
        pem = self._signing_key_pem
        private = _signing_key(pem if isinstance(pem, bytes) else pem())
        publics = [private.public_key()]
        for other in self._verification_keys_pem:
            public = serialization.load_pem_public_key(other)
            if not isinstance(public, rsa.RSAPublicKey):
                raise ValueError("service account tokens are verified with RSA keys")
            publics.append(public)
        return _Keys(private, key_id(publics[0]), {key_id(public): public for public in publics})

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token that says `claims`."""
        header = orjson.dumps({"alg": ALGORITHM, "kid": self._keys.id})
        signed = _encoded(header) + b"." + _encoded(orjson.dumps(claims, option=orjson.OPT_SORT_KEYS))
        return (signed + b"." + _encoded(self._keys.private.sign(signed, _PADDING, _HASH))).decode()

    def verify(self, token: str) -> dict[str, Any]:
        """Return what a token says; raise BadToken if none of the keys signed it."""
        header = _part(token, 0)
        wanted = header.get("kid") or ""
        keys = list(self._keys.publics.values()) if not wanted else [self._keys.publics.get(wanted)]
        # What "crit" names must be understood (RFC 7515, 4.1.11), and nothing of that kind is.
        way = _WAYS.get(str(header.get("alg")))
        if way is not None and "crit" not in header:
            signed, _, signature = token.rpartition(".")
            for key in keys:
                if key is not None and _is_signed(key, signed, signature, *way):
                    return _part(token, 1)
        if wanted and keys == [None]:
            raise BadToken("invalid signature, no keys found")
        raise BadToken("go-jose/go-jose: error in cryptographic primitive")

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
            {"use": "sig", "kty": "RSA", "kid": id, "alg": ALGORITHM, "n": _number(public.n), "e": _number(public.e)}
            for id, key in self._keys.publics.items()
            for public in [key.public_numbers()]
        ]
        return orjson.dumps({"keys": keys})


@lru_cache(maxsize=4)
def _signing_key(pem: bytes) -> rsa.RSAPrivateKey:
    """Return a private key; it is wanted several times at every start.

    Whether its numbers are primes is not looked at, as that takes longer than all the rest of a start: a key with
    other ones would not verify what it signs.
    """
    key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("service account tokens are signed with an RSA key")
    try:
        key.public_key().verify(key.sign(pem, _PADDING, _HASH), pem, _PADDING, _HASH)
    except InvalidSignature as error:
        raise ValueError("the key of service account tokens is damaged") from error
    return key


def _is_signed(
    key: rsa.RSAPublicKey, signed: str, signature: str, pad: padding.AsymmetricPadding, digest: hashes.HashAlgorithm
) -> bool:
    try:
        key.verify(_decoded(signature), signed.encode(), pad, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def _number(value: int) -> str:
    """Return a number as RFC 7518 writes it: base64url of its bytes, the highest first."""
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def key_id(public: rsa.RSAPublicKey) -> str:
    """Return a key's id: the unpadded base64url of its DER's SHA-256."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _encoded(hashlib.sha256(der).digest()).decode()


def unverified_claims(token: str) -> dict[str, Any]:
    """Return what a token says, without any trust; raise BadToken if it is not of a token's form."""
    return _part(token, 1)


def _part(token: str, index: int) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("not a token")
    try:
        return _claims(_decoded(parts[index]))
    except ValueError as error:
        raise BadToken("not a token") from error


def _claims(payload: bytes) -> dict[str, Any]:
    claims = orjson.loads(payload)
    if not isinstance(claims, dict):
        raise BadToken("not a token")
    return claims
