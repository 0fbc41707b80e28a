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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

from haven.apimachinery import times
from haven.apimachinery.goformat import quote
from haven.apiserver.encryption.ciphers import AesGcm, DerivedGcm
from haven.apiserver.encryption.meter import FROM_STORAGE, TO_STORAGE, EncryptionMeter
from haven.apiserver.encryption.transformers import NO_CALL, DecryptionFailed, Opened, SealFailed, Transformer
from haven.apiserver.encryption.wire import MalformedMessage, annotations_of, bytes_of, decode, encode, text_of
from haven.clock import Clock

__all__ = ["Encrypted", "Envelope", "KeyService", "KmsFailed", "Status"]

SEED_SECONDS_MAX = 3 * 60.0
"""A seed may be written with for so long after the plugin last said that its key is still the one."""
KEY_ID_BYTES_MAX = 1024
SOURCE_BYTES_MAX = 1024
ANNOTATIONS_BYTES_MAX = 32 * 1024
WELL_SECONDS, ILL_SECONDS = 20.0, 3.0
"""For how long an answer to the question how a plugin is holds good."""
_SEEDS_MAX = 1000
_SEED_TYPE = 1
_NO_SEED = "got unexpected nil transformer"
_NEVER = "0001-01-01T00:00:00Z"
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

    def __init__(self, name: str, service: KeyService, clock: Clock, meter: EncryptionMeter | None = None) -> None:
        self.name = name
        self._meter = meter
        self.problem = "no status yet"
        """Why the plugin is not well; "" if it is."""
        self._service = service
        self._clock = clock
        self._seed: _Seed | None = None
        self._good_until = 0.0
        self._known: OrderedDict[bytes, Transformer] = OrderedDict()
        self._failed: dict[bytes, tuple[float, str]] = {}
        """Seeds that could not be decrypted, until when they are not tried again, and why."""
        self._asked_at = float("-inf")
        self._version = ""

    @property
    def is_outdated(self) -> bool:
        """Whether it is time to ask the plugin again before anybody is told how it is."""
        age = self._clock.monotonic_seconds() - self._asked_at
        return age >= (ILL_SECONDS if self.problem else WELL_SECONDS)

    def refresh(self) -> None:
        """Ask the plugin how it is; make a new seed if its key has changed. Raises nothing: see `problem`."""
        try:
            status = self._service.status()
        except (KmsFailed, MalformedMessage) as error:
            head = "failed to perform status section of the healthz check for KMS Provider"
            self.problem = f"{head} {self.name}, error: {error}"
        else:
            self._count_told(status.key_id)
            wrong = self._wrong(status)
            self.problem = f"kmsv2 Provider {self.name} is not healthy, error: {_joined(wrong)}" if wrong else ""
        self._asked_at = self._clock.monotonic_seconds()

    def _wrong(self, status: Status) -> list[str]:
        """Return what is wrong with a plugin's answer. Its key is gone by even if something else is wrong."""
        wrong: list[str] = []
        if status.healthz != "ok":
            wrong.append(f"got unexpected healthz status: {status.healthz}")
        if status.version not in ("v2", "v2beta1"):
            wrong.append(f"expected KMSv2 API version v2, got {status.version}")
        else:
            self._version = self._version or status.version
            if self._version != status.version:
                text = "KMSv2 API version should not change after the initial status response version"
                wrong.append(f"{text} {self._version}, got {status.version}")
        try:
            _check_key_id(status.key_id)
        except KmsFailed as error:
            return [*wrong, f"got invalid KMSv2 KeyID hash {quote(_hash(status.key_id))}: {error}"]
        rotated = self._rotate(status.key_id)
        return [*wrong, rotated] if rotated else wrong

    def _rotate(self, key_id: str) -> str:
        """Write with the plugin's key from now on; return why that cannot be, "" if it can."""
        good_until = self._clock.monotonic_seconds() + SEED_SECONDS_MAX
        seed = self._seed
        if seed is not None and seed.source.key_id == key_id:
            self._good_until = good_until
            return ""
        uid = str(uuid.uuid4())
        encrypted, because = "", "<nil>"
        try:
            new = self._new_seed(uid)
            encrypted = new.source.key_id
            if encrypted == key_id:
                self._seed, self._good_until = new, good_until
                return ""
        except (KmsFailed, MalformedMessage) as error:
            because = str(error)
        known = "<nil>" if seed is not None else _NO_SEED
        hashes = (quote(_hash(one)) for one in (key_id, encrypted, seed.source.key_id if seed is not None else ""))
        shown = "statusKeyIDHash={}, encryptKeyIDHash={}, stateKeyIDHash={}".format(*hashes)
        return (
            f"failed to rotate DEK uid={quote(uid)}, useSeed=true, errState={known}, errGen={because}, {shown}, "
            f"expirationTimestamp={self._until(self._good_until) if seed is not None else _NEVER}"
        )

    def _until(self, monotonic_seconds: float) -> str:
        now = self._clock.now_seconds()
        return times.format_time(now + monotonic_seconds - self._clock.monotonic_seconds())

    def _new_seed(self, uid: str) -> _Seed:
        began = perf_counter()
        seed = os.urandom(32)
        if self._meter is not None:
            self._meter.generated(perf_counter() - began)
        try:
            source = self._service.encrypt(seed, uid)
        except KmsFailed as error:
            raise KmsFailed(f"failed to encrypt DEK, error: {error}", error.status) from None
        _check_source(source)
        transformer = DerivedGcm(seed)
        self._remember(_fingerprint(_SEED_TYPE, source), transformer)
        return _Seed(transformer, source)

    def seal(self, key: bytes, value: bytes) -> bytes:
        seed = self._seed
        if seed is None:
            raise KmsFailed(_NO_SEED)
        if self._clock.monotonic_seconds() > self._good_until:
            now, ended = times.format_time(self._clock.now_seconds()), self._until(self._good_until)
            key_hash = quote(_hash(seed.source.key_id))
            raise KmsFailed(f"encryptedDEKSource with keyID hash {key_hash} expired at {ended} (current time is {now})")
        sealed = seed.transformer.seal(key, value)
        if self._meter is not None:
            self._meter.key_used(self.name, TO_STORAGE, seed.source.key_id)
        return encode(
            {
                1: sealed,
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
        if self._seed is None:
            raise DecryptionFailed(_NO_SEED)
        fingerprint = _fingerprint(int(kind), source)
        transformer = self._known.get(fingerprint)
        if transformer is None:
            if self._meter is not None:
                self._meter.missed()
            transformer = self._unwrap(int(kind), source, fingerprint)
            self._remember(fingerprint, transformer)
        if self._meter is not None:
            self._meter.key_used(self.name, FROM_STORAGE, source.key_id)
        value, _ = transformer.open(key, data)
        return Opened(value, source.key_id != self._seed.source.key_id or kind != _SEED_TYPE)

    def _unwrap(self, kind: int, source: Encrypted, fingerprint: bytes) -> Transformer:
        until, because = self._failed.get(fingerprint, (float("-inf"), ""))
        if self._clock.monotonic_seconds() < until:
            raise DecryptionFailed(because)
        try:
            plain = self._service.decrypt(source.ciphertext, str(uuid.uuid4()), source.key_id, source.annotations)
            transformer: Transformer = DerivedGcm(plain) if kind == _SEED_TYPE else AesGcm(plain)
        except (KmsFailed, MalformedMessage) as error:
            because = f"failed to decrypt DEK, error: {error}"
            self._failed[fingerprint] = (self._clock.monotonic_seconds() + ILL_SECONDS, because)
            raise DecryptionFailed(because, getattr(error, "status", NO_CALL)) from None
        except ValueError:  # No key of AES.
            raise DecryptionFailed(f"crypto/aes: invalid key size {len(plain)}") from None
        self._failed.pop(fingerprint, None)
        return transformer

    def _remember(self, fingerprint: bytes, transformer: Transformer) -> None:
        self._known[fingerprint] = transformer
        while len(self._known) > _SEEDS_MAX:
            self._known.popitem(last=False)
        if self._meter is not None:
            self._meter.remembered(self.name, len(self._known))

    def _count_told(self, key_id: str) -> None:
        if self._meter is None:
            return
        if 0 < len(key_id.encode()) <= KEY_ID_BYTES_MAX:
            self._meter.key_told(self.name, key_id)
        else:
            self._meter.key_invalid(self.name, "too_long" if key_id else "empty")


def _fingerprint(kind: int, source: Encrypted) -> bytes:
    return hashlib.sha256(
        encode({1: kind + 1, 2: source.ciphertext, 3: source.key_id, 4: dict(source.annotations)})
    ).digest()


def _joined(errors: Sequence[str]) -> str:
    return errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"


def _hash(key_id: str) -> str:
    """Return what is told of a key's id."""
    return f"sha256:{hashlib.sha256(key_id.encode()).hexdigest()}" if key_id else ""


def _check_key_id(key_id: str) -> None:
    if not key_id:
        raise KmsFailed("keyID is empty")
    if len(key_id.encode()) > KEY_ID_BYTES_MAX:
        raise KmsFailed(f"keyID is {len(key_id.encode())} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}")


def _check_source(source: Encrypted) -> None:
    size = len(source.ciphertext)
    if not size:
        raise KmsFailed("failed to validate encrypted DEK source: encrypted DEK source is empty")
    if size > SOURCE_BYTES_MAX:
        text = f"encrypted DEK source is {size} bytes, which exceeds the max size of {SOURCE_BYTES_MAX}"
        raise KmsFailed(f"failed to validate encrypted DEK source: {text}")
    try:
        _check_key_id(source.key_id)
    except KmsFailed as error:
        raise KmsFailed(f"failed to validate key id: {error}") from None
    total = sum(len(key) + len(value) for key, value in source.annotations.items())
    if total > ANNOTATIONS_BYTES_MAX:
        text = f"total size of annotations is {total}, which exceeds the max size of {ANNOTATIONS_BYTES_MAX}"
        raise KmsFailed(f"failed to validate annotations: {text}")
    for key in source.annotations:
        if _DOMAIN.fullmatch(key) is None:
            text = "should be a domain with at least two segments separated by dots"
            raise KmsFailed(f"failed to validate annotations: annotations: Invalid value: {quote(key)}: {text}")
