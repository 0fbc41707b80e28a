"""SPDY frames survive the way through any chunks; channels read as the clients write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apiserver.streaming import channels
from haven.apiserver.streaming.channels import Message, protocol_of
from haven.client import spdy


@given(
    payloads=st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=10),
    headers=st.lists(
        st.dictionaries(st.sampled_from(["port", "streamtype", "x"]), st.text("abc/", max_size=9)), max_size=4
    ),
    cut=st.integers(1, 50),
)
def test_frames_come_out_as_they_went_in(
    payloads: list[tuple[bytes, bool]], headers: list[dict[str, str]], cut: int
) -> None:
    writer, reader = spdy.Writer(client=True), spdy.Reader()
    sent: list[spdy.Frame] = []
    wire = b""
    for values in headers:
        stream, frame = writer.open(values)
        sent.append(spdy.StreamOpened(stream, values, False))
        wire += frame
    for data, fin in payloads:
        sent.append(spdy.Data(1, data, fin))
        wire += writer.data(1, data, fin=fin)
    wire += writer.ping(7) + writer.reset(3, 5) + writer.go_away()
    sent += [spdy.Ping(7), spdy.Reset(3, 5), spdy.GoAway()]

    received = [frame for at in range(0, len(wire), cut) for frame in reader.feed(wire[at : at + cut])]

    assert received == sent


def test_streams_of_a_client_have_odd_numbers() -> None:
    writer = spdy.Writer(client=True)

    assert [writer.open({})[0] for _ in range(3)] == [1, 3, 5]


def test_another_version_is_refused() -> None:
    with pytest.raises(spdy.Malformed):
        list(spdy.Reader().feed(b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01"))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("v5.channel.k8s.io", b"\x00hi", Message(0, b"hi")),
        ("v5.channel.k8s.io", b"\xff\x00", Message(0, b"", ends=True)),
        ("v4.channel.k8s.io", b'\x04{"Width":80}', Message(4, b'{"Width":80}')),
        ("v4.base64.channel.k8s.io", "0aGk=", Message(0, b"hi")),
        ("", b"\x00hi", Message(0, b"hi")),
        ("v5.channel.k8s.io", b"", None),
    ],
)
def test_a_message_names_its_channel(name: str, raw: bytes | str, message: Message | None) -> None:
    assert protocol_of(name).read(raw) == message


def test_output_is_written_in_the_form_that_was_agreed_on() -> None:
    assert protocol_of("v4.channel.k8s.io").write(channels.STDOUT, b"x") == b"\x01x"
    assert protocol_of("base64.channel.k8s.io").write(channels.STDOUT, b"x") == "1eA=="
