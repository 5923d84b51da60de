# SPDX-License-Identifier: MIT
"""Sizes as people write them."""

from __future__ import annotations

import pytest

from pydiskimg.units import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512b", 512),
        ("512k", 512 << 10),
        ("10G", 10 << 30),
        ("10 GiB", 10 << 30),
        ("1.5T", 3 << 39),
        ("0.5k", 512),
        ("0.0", 0),
        ("7E", 7 << 60),
        ("0x10000", 65536),
        ("7.999999999999999999E", (1 << 63) - 2),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "-1",
        "٣",
        "\uff11k",
        "1\u212a",
        "1.",
        ".5",
        "1bib",
        "1_000",
        "0x",
        "0x1k",
        "many",
        "9" * 5000,
    ],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; expected a number and k, M, G, T, P or E"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0.1", "1.5", "0.0001k"])
def test_fractions_of_a_byte(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", ["8E", "0x8000000000000000", "9" * 90])
def test_too_large(text: str) -> None:
    with pytest.raises(ValueError, match="larger than any disk can be"):
        parse_size(text)
