"""The ciphers of local providers: AES in GCM and CBC, NaCl's secretbox, and AES-GCM with a key for each value.

Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#providers
"""

from __future__ import annotations

import os
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.poly1305 import Poly1305

from haven.apiserver.encryption.salsa20 import keystream, subkey
from haven.apiserver.encryption.transformers import DecryptionFailed, Opened

__all__ = ["AesCbc", "AesGcm", "DerivedGcm", "Secretbox"]

_GCM_NONCE, _GCM_TAG = 12, 16
_BLOCK = 16
_BOX_NONCE, _BOX_TAG = 24, 16
INFO = 32
SEED_MIN = 32
_TOO_SHORT = "the stored data was shorter than the required size"


class AesGcm:
    """AES-GCM with a random nonce. One key is good for 200,000 writes or so, then it has to be changed."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, key: bytes, value: bytes) -> bytes:
        nonce = os.urandom(_GCM_NONCE)
        return nonce + self._aead.encrypt(nonce, value, key)

    def open(self, key: bytes, stored: bytes) -> Opened:
        if len(stored) < _GCM_NONCE + _GCM_TAG:
            raise DecryptionFailed(_TOO_SHORT)
        try:
            return Opened(self._aead.decrypt(stored[:_GCM_NONCE], stored[_GCM_NONCE:], key), False)
        except InvalidTag:
            raise DecryptionFailed("cipher: message authentication failed") from None


class AesCbc:
    """AES-CBC with PKCS #7 padding; it does not notice what was tampered with."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, key: bytes, value: bytes) -> bytes:
        start = os.urandom(_BLOCK)
        padder = padding.PKCS7(_BLOCK * 8).padder()
        padded = padder.update(value) + padder.finalize()
        encryptor = Cipher(algorithms.AES(self._key), modes.CBC(start)).encryptor()
        return start + encryptor.update(padded) + encryptor.finalize()

    def open(self, key: bytes, stored: bytes) -> Opened:
        if len(stored) < _BLOCK:
            raise DecryptionFailed(_TOO_SHORT)
        if len(stored) % _BLOCK:
            raise DecryptionFailed("the stored data is not a multiple of the block size")
        if len(stored) == _BLOCK:
            raise DecryptionFailed("invalid padding on input")
        decryptor = Cipher(algorithms.AES(self._key), modes.CBC(stored[:_BLOCK])).decryptor()
        padded = decryptor.update(stored[_BLOCK:]) + decryptor.finalize()
        unpadder = padding.PKCS7(_BLOCK * 8).unpadder()
        try:
            return Opened(unpadder.update(padded) + unpadder.finalize(), False)
        except ValueError:
            raise DecryptionFailed("invalid padding on input") from None


class Secretbox:
    """NaCl's secretbox: XSalsa20 and Poly1305. Source: https://nacl.cr.yp.to/secretbox.html"""

    def __init__(self, key: bytes) -> None:
        assert len(key) == 32
        self._key = key

    def seal(self, key: bytes, value: bytes) -> bytes:
        nonce = os.urandom(_BOX_NONCE)
        one_time, sealed = self._xor(nonce, value)
        return nonce + Poly1305.generate_tag(one_time, sealed) + sealed

    def open(self, key: bytes, stored: bytes) -> Opened:
        if len(stored) < _BOX_NONCE + _BOX_TAG:
            raise DecryptionFailed(_TOO_SHORT)
        nonce, tag, sealed = stored[:_BOX_NONCE], stored[_BOX_NONCE:][:_BOX_TAG], stored[_BOX_NONCE + _BOX_TAG :]
        one_time, value = self._xor(nonce, sealed)
        try:
            Poly1305.verify_tag(one_time, sealed, tag)
        except InvalidSignature:
            raise DecryptionFailed("unable to decrypt secretbox") from None
        return Opened(value, False)

    def _xor(self, nonce: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Return the key of the authenticator, and the data with the stream over it."""
        stream = keystream(subkey(self._key, nonce[:16]), nonce[16:], 32 + len(data))
        mixed = int.from_bytes(data, "little") ^ int.from_bytes(stream[32:], "little")
        return stream[:32], mixed.to_bytes(len(data), "little")


class DerivedGcm:
    """AES-GCM under a key of its own for each value, derived from a seed and 32 random bytes that stand in front.

    Source: KEP-3299 (KMS v2), HKDF_SHA256_XNONCE_AES_GCM_SEED; RFC 5869, expand only.
    """

    _KEYS_MAX = 1024

    def __init__(self, seed: bytes) -> None:
        if len(seed) < SEED_MIN:
            raise DecryptionFailed(f"invalid seed length {len(seed)} used for key generation")
        self._seed = seed
        self._keys: OrderedDict[bytes, AesGcm] = OrderedDict()

    def seal(self, key: bytes, value: bytes) -> bytes:
        info = os.urandom(INFO)
        return info + self._cipher(info).seal(key, value)

    def open(self, key: bytes, stored: bytes) -> Opened:
        if len(stored) < INFO:
            raise DecryptionFailed(_TOO_SHORT)
        return self._cipher(stored[:INFO]).open(key, stored[INFO:])

    def _cipher(self, info: bytes) -> AesGcm:
        known = self._keys.get(info)
        if known is None:
            known = self._keys[info] = AesGcm(HKDFExpand(hashes.SHA256(), 32, info).derive(self._seed))
            if len(self._keys) > self._KEYS_MAX:
                self._keys.popitem(last=False)
        return known
