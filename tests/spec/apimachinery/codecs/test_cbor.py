"""CBOR, after the examples of RFC 8949's appendix A and in Kubernetes' dialect."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery.codecs.cbor import PREFIX, InvalidCBOR, decode, encode

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_what_is_written_is_read_again(tree: Any) -> None:
    assert decode(encode(tree)) == tree
    assert encode(tree).startswith(PREFIX)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0), ("1818", 24), ("1903e8", 1000), ("1b000000e8d4a51000", 1000000000000), ("3903e7", -1000),
        ("f93c00", 1.0), ("f90001", 5.960464477539063e-8), ("fa47c35000", 100000.0), ("fb3ff199999999999a", 1.1),
        ("f4", False), ("f5", True), ("f6", None), ("60", ""), ("62c3bc", "ü"), ("4161", "a"),
        ("8301820203820405", [1, [2, 3], [4, 5]]), ("a26161016162820203", {"a": 1, "b": [2, 3]}),
        ("5f42010243030405ff", "\x01\x02\x03\x04\x05"), ("7f657374726561646d696e67ff", "streaming"),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]), ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("c11a514b67b0", "2013-03-21T20:04:00Z"), ("d64401020304", "AQIDBA=="), ("d74401020304", "01020304"),
        ("d9d9f7a0", {}),
    ],
)  # fmt: skip
def test_an_item_is_read_as_the_standard_says(data: str, value: Any) -> None:
    assert decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("data", "because"),
    [
        ("", "EOF"), ("a1", "unexpected EOF"), ("1b0000", "unexpected EOF"), ("0000", "extraneous data"),
        ("1bffffffffffffffff", "positive integer"), ("c249010000000000000000", "bignum"), ("f7", "simple value 23"),
        ("f97e00", "floating-point NaN"), ("f97c00", "floating-point infinity"), ("62c328", "invalid UTF-8"),
        ("a2616101616102", 'duplicate map key "a"'), ("a10101", "of type string"), ("ff", "break"), ("1c", "invalid"),
        ("9f01", "unexpected EOF"), ("81ff", "break"), ("9affffffff01", "unexpected EOF"),
    ],
)  # fmt: skip
def test_what_json_cannot_say_is_refused(data: str, because: str) -> None:
    with pytest.raises(InvalidCBOR, match=because):
        decode(bytes.fromhex(data))


def test_numbers_are_written_as_short_as_they_can_be() -> None:
    assert encode(1.5) == PREFIX + bytes.fromhex("f93e00")
    assert encode(math.pi) == PREFIX + bytes.fromhex("fb400921fb54442d18")
    assert encode("a") == PREFIX + b"\x41a"
