# SPDX-License-Identifier: MIT
"""CRC-32C against the published values, and its fast paths against the byte-by-byte definition."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg import crc32c as module
from pydiskimg.crc32c import FOLDS, POLYNOMIAL, START, _steps, byte_table, crc32c, crc32c_columns


@pytest.fixture(autouse=True, params=["Python", "google-crc32c", "crc32c"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways to compute; both packages are among what the tests need."""
    monkeypatch.setattr(module, "_extend", None)
    monkeypatch.setattr(module, "_patience", 1 << 62)
    if request.param == "crc32c":
        monkeypatch.setitem(sys.modules, "google_crc32c", None)
    if request.param != "Python":
        module.use_package()
        assert module._extend is not None


def definition(data: bytes, register: int) -> int:
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
    return register


@pytest.mark.parametrize(
    ("data", "published"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_published_values(data: bytes, published: int) -> None:
    """RFC 3720, B.4; those values are inverted at the end."""
    assert crc32c(data) ^ 0xFFFFFFFF == published


@given(st.binary(max_size=600), st.integers(0, 0xFFFFFFFF))
def test_any_length_and_start(data: bytes, register: int) -> None:
    assert crc32c(data, register) == definition(data, register)
    assert crc32c(bytearray(data), register) == definition(data, register)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_pieces_chain(data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


@pytest.mark.parametrize("size", [1020, 1024, 2048, 4096, 4095])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x12\x34\x56"])
def test_whole_blocks(size: int, fill: bytes) -> None:
    data = (fill * size)[:size]
    assert crc32c(data) == definition(data, START)


@given(st.integers(1, 40), st.lists(st.binary(min_size=40, max_size=40), min_size=1, max_size=9))
def test_columns_are_many_messages(length: int, messages: list[bytes]) -> None:
    messages = [message[:length] for message in messages]
    columns = [bytes(message[index] for message in messages) for index in range(length)]
    registers = crc32c_columns(columns, 0x1234)
    for index, message in enumerate(messages):
        assert int.from_bytes(bytes(column[index] for column in registers), "little") == definition(message, 0x1234)


@pytest.mark.parametrize("distances", FOLDS)
def test_bits_that_fold_onto_each_other_leave_nothing(distances: tuple[int, ...]) -> None:
    message = sum(1 << distance for distance in (0, *distances))
    assert definition(message.to_bytes(distances[-1] // 8 + 1, "little"), 0) == 0


@pytest.mark.parametrize("size", [47, 48, 49, 64, 65, 5000, 12_345, 32 << 10, (32 << 10) + 1, 100_003])
def test_long_messages(size: int) -> None:
    data, table = random.Random(size).randbytes(size), byte_table(POLYNOMIAL)
    register = 0x1234
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    assert crc32c(data, 0x1234) == register


def test_any_number_of_lengths_takes_no_more_memory() -> None:
    for size in range(49, 400):
        assert crc32c(bytes(size), 0) == 0
    assert len(_steps) <= 64
