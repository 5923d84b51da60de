# SPDX-License-Identifier: MIT
"""Lines of checksum files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.fetch.checksums import Checksum, find_checksum

NAME = "debian-12-x86_64.img"
A, B = "0123456789abcdef" * 4, "f" * 64


def found(text: str, *, name: str = NAME, alone: bool = False, algorithm: str = "sha256") -> str | None:
    checksum = find_checksum(text.encode(), name, algorithm, alone=alone)
    assert checksum is None or checksum.algorithm == algorithm
    return checksum.digest if checksum else None


@pytest.mark.parametrize(
    "line",
    [
        f"{A}  {NAME}",
        f"{A} *{NAME}",
        f"{A} {NAME}",
        f"{A}  ./{NAME}",
        f"{A.upper()}  {NAME}\r",
        f"SHA256 ({NAME}) = {A}",
        f"SHA256({NAME})= {A}",
        f"SHA-256 (./{NAME}) = {A}",
        f"# comment\n\n{B}  other\n{A}  {NAME}\n{B}  x{NAME}\n",
        f"{A}  {NAME}\n{A} *{NAME}\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n\n{A}  {NAME}\n-----BEGIN PGP SIGNATURE-----\n",
    ],
)
def test_lines_with_its_checksum(line: str) -> None:
    assert found(line) == A
    assert found(line, alone=True) == A


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{A}  {NAME}.sig",
        f"{A}  old-{NAME}",
        f"{A}0  {NAME}",
        f"{A[1:]}  {NAME}",
        f"{A[:40]}  {NAME}",
        f"g{A[1:]}  {NAME}",
        f"MD5 ({NAME}) = {A[:32]}",
        f"SHA1 ({NAME}) = {A[:40]}",
        f"SHA512 ({NAME}) = {A * 2}",
        f"{A}  ../{NAME}",
        f"<html>{A}  {NAME}</html>",
    ],
)
def test_lines_without(line: str) -> None:
    assert found(line) is None


def test_what_counts_in_a_file_about_one_image() -> None:
    for text in (A, f"{A}\n", f"{A}  /srv/images/{NAME}\n", f"SHA256 (/srv/{NAME}) = {A}\n"):
        assert (found(text), found(text, alone=True)) == (None, A)
    assert found(f"{A}  another\n", alone=True) is None


def test_sha1_as_sha1sum_writes_it() -> None:
    assert found(f"{A[:40]}  {NAME}\n", algorithm="sha1") == A[:40]
    assert found(f"{A}  {NAME}\n", algorithm="sha1") is None


def test_two_different_ones() -> None:
    with pytest.raises(ValueError, match="has 2 different checksums"):
        found(f"{A}  {NAME}\n{B}  {NAME}\n")


def test_names_as_sha256sum_escapes_them() -> None:
    assert found(f"\\{A}  a\\\\b\\nc\n", name="a\\b\nc") == A
    assert found(f"{A}  a\\nc\n", name="a\\nc") == A


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    find_checksum(data, NAME, "sha256", alone=True)


@given(st.text(alphabet=st.characters(exclude_characters="/\n\r\t ", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_name(name: str) -> None:
    for line in (f"{A}  {name}\n", f"{A} *{name}\n", f"SHA256 ({name}) = {A}\n"):
        assert found(line, name=name) == A


def test_a_long_line_takes_no_time() -> None:
    line = (f"SHA256 ({'(' * 500_000}" + f") = {A}" * 10_000).encode()
    assert find_checksum(line, NAME, "sha256") is None


def test_shown() -> None:
    assert str(Checksum("sha1", "ab")) == "SHA-1 ab"
