"""JSON that only Go reads."""

from __future__ import annotations

import json

import pytest

from haven.apimachinery.schema.gojson import readable


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'"plain \xc3\xa9"', "plain é"),
        (b'"\xff\xfe"', "��"),
        (b'"\xe2\x82x"', "��x"),
        (rb'"\ud800"', "�"),
        (rb'"\udc00\ud800A"', "��A"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\\ud800"', "\\ud800"),
        (b'"\xff' + rb'\ud800\n"', "��\n"),
    ],
)
def test_what_is_no_text_is_read_as_the_replacement_character(data: bytes, text: str) -> None:
    assert json.loads(readable(data)) == text
