# SPDX-License-Identifier: MIT
"""A guest's text files: bytes to text and back without loss, and lines appended."""

from __future__ import annotations


def decoded(data: bytes) -> str:
    """Return the text of a file; bytes that are not UTF-8 become surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes of a text from decoded(), or of any other text."""
    return text.encode("utf-8", "surrogateescape")


def with_lines(data: bytes, *lines: bytes) -> bytes:
    """Return data with lines appended; they are given without their line ends."""
    return b"".join([ended(data), *(line + b"\n" for line in lines)])


def ended(data: bytes) -> bytes:
    """Return data with a line end after the last line; empty data stays empty."""
    return data if not data or data.endswith(b"\n") else data + b"\n"
