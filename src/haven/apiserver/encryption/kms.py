"""Encryption with keys that a KMS plugin keeps (v2): the plugin encrypts a seed, the seed gives each value its key.

A seed is made when the server starts and when the plugin's key has changed; what was written with an older key can be
read as long as the plugin still decrypts its seed, and is written anew when somebody updates it. Seeds that were
decrypted are remembered, so the plugin is asked once for each, by a call that blocks: there are few of them.
Source: https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from haven.apiserver.encryption.ciphers import AesGcm, DerivedGcm
from haven.apiserver.encryption.transformers import DecryptionFailed, Opened, SealFailed, Transformer
from haven.apiserver.encryption.wire import MalformedMessage, annotations_of, bytes_of, decode, encode, text_of
from haven.clock import Clock

__all__ = ["Encrypted", "Envelope", "KeyService", "KmsFailed", "Status"]

SEED_SECONDS_MAX = 3 * 60.0
"""A seed may be written with for so long after the plugin last said that its key is still the one."""
KEY_ID_BYTES_MAX = 1024
SOURCE_BYTES_MAX = 1024
ANNOTATIONS_BYTES_MAX = 32 * 1024
_SEEDS_MAX = 1000
_SEED_TYPE = 1
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


class KmsFailed(SealFailed):
    """The plugin could not be asked, or its answer makes no sense."""


class Status(NamedTuple):
    """What a plugin says of itself."""

    version: str
    healthz: str
    key_id: str


class Encrypted(NamedTuple):
    """What a plugin made of a plaintext."""

    ciphertext: bytes
    key_id: str
    annotations: Mapping[str, bytes]


class KeyService(Protocol):
    """A plugin. Calls block; all raise KmsFailed."""

    def status(self) -> Status: ...

    def encrypt(self, plaintext: bytes, uid: str) -> Encrypted: ...

    def decrypt(self, ciphertext: bytes, uid: str, key_id: str, annotations: Mapping[str, bytes]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Seed:
    """What values are written with."""

    transformer: DerivedGcm
    source: Encrypted


class Envelope:
    """Seals and opens values with seeds that a plugin protects. `refresh` has to be called now and then."""

    def __init__(self, name: str, service: KeyService, clock: Clock) -> None:
        self.name = name
        self.problem = "no status yet"
        """Why the plugin is not well; "" if it is."""
        self._service = service
        self._clock = clock
        self._seed: _Seed | None = None
        self._good_until = 0.0
        self._known: OrderedDict[bytes, Transformer] = OrderedDict()

    def refresh(self) -> None:
        """Ask the plugin how it is; make a new seed if its key has changed. Raises nothing: see `problem`."""
        try:
            status = self._service.status()
            _check_status(status)
            if self._seed is None or self._seed.source.key_id != status.key_id:
                self._seed = self._new_seed()
            self._good_until = self._clock.monotonic_seconds() + SEED_SECONDS_MAX
            self.problem = ""
        except (KmsFailed, MalformedMessage) as error:
            self.problem = str(error)

    def _new_seed(self) -> _Seed:
        seed = os.urandom(32)
        source = self._service.encrypt(seed, str(uuid.uuid4()))
        _check_source(source)
        transformer = DerivedGcm(seed)
        self._remember(_fingerprint(_SEED_TYPE, source), transformer)
        return _Seed(transformer, source)

    def seal(self, key: bytes, value: bytes) -> bytes:
        seed = self._seed
        if seed is None:
            raise KmsFailed(f"got unexpected nil transformer: {self.problem}")
        if self._clock.monotonic_seconds() > self._good_until:
            raise KmsFailed(f"the seed of the KMS provider {self.name} is out of date: {self.problem}")
        return encode(
            {
                1: seed.transformer.seal(key, value),
                2: seed.source.key_id,
                3: seed.source.ciphertext,
                4: seed.source.annotations,
                5: _SEED_TYPE,
            }
        )

    def open(self, key: bytes, stored: bytes) -> Opened:
        try:
            fields = decode(stored)
            source = Encrypted(bytes_of(fields, 3), text_of(fields, 2), annotations_of(fields, 4))
            data = bytes_of(fields, 1)
            kind = fields.get(5, [0])[-1]
            if not data:
                raise DecryptionFailed("encrypted data is empty")
            _check_source(source)
        except (MalformedMessage, KmsFailed) as error:
            raise DecryptionFailed(str(error)) from None
        if kind not in (0, _SEED_TYPE):
            raise DecryptionFailed(f"unknown encryptedDEKSourceType: {kind!r}")
        fingerprint = _fingerprint(int(kind), source)
        transformer = self._known.get(fingerprint)
        if transformer is None:
            transformer = self._unwrap(int(kind), source)
            self._remember(fingerprint, transformer)
        value, _ = transformer.open(key, data)
        current = self._seed.source.key_id if self._seed is not None else ""
        return Opened(value, source.key_id != current or kind != _SEED_TYPE)

    def _unwrap(self, kind: int, source: Encrypted) -> Transformer:
        try:
            plain = self._service.decrypt(source.ciphertext, str(uuid.uuid4()), source.key_id, source.annotations)
        except KmsFailed as error:
            raise DecryptionFailed(f"failed to decrypt DEK, error: {error}") from None
        return DerivedGcm(plain) if kind == _SEED_TYPE else AesGcm(plain)

    def _remember(self, fingerprint: bytes, transformer: Transformer) -> None:
        self._known[fingerprint] = transformer
        while len(self._known) > _SEEDS_MAX:
            self._known.popitem(last=False)


def _fingerprint(kind: int, source: Encrypted) -> bytes:
    return hashlib.sha256(
        encode({1: kind + 1, 2: source.ciphertext, 3: source.key_id, 4: dict(source.annotations)})
    ).digest()


def _check_status(status: Status) -> None:
    if status.version not in ("v2", "v2beta1"):
        raise KmsFailed(f"expected KMSv2 API version v2, got {status.version}")
    if status.healthz != "ok":
        raise KmsFailed(f"expected KMSv2 healthz status ok, got {status.healthz}")
    _check_key_id(status.key_id)


def _check_key_id(key_id: str) -> None:
    if not key_id:
        raise KmsFailed("failed to validate key id: keyID is empty")
    if len(key_id.encode()) > KEY_ID_BYTES_MAX:
        text = f"keyID is {len(key_id.encode())} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}"
        raise KmsFailed(f"failed to validate key id: {text}")


def _check_source(source: Encrypted) -> None:
    _check_key_id(source.key_id)
    size = len(source.ciphertext)
    if not size:
        raise KmsFailed("failed to validate encrypted DEK source: encrypted DEK source is empty")
    if size > SOURCE_BYTES_MAX:
        text = f"encrypted DEK source is {size} bytes, which exceeds the max size of {SOURCE_BYTES_MAX}"
        raise KmsFailed(f"failed to validate encrypted DEK source: {text}")
    total = sum(len(key) + len(value) for key, value in source.annotations.items())
    if total > ANNOTATIONS_BYTES_MAX:
        text = f"total size of annotations is {total}, which exceeds the max size of {ANNOTATIONS_BYTES_MAX}"
        raise KmsFailed(f"failed to validate annotations: {text}")
    for key in source.annotations:
        if _DOMAIN.fullmatch(key) is None:
            raise KmsFailed(f'failed to validate annotations: annotations: Invalid value: "{key}": should be a domain')
