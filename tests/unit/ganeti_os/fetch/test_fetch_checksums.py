# SPDX-License-Identifier: MIT
"""Lines of checksum files."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.fetch.checksums import Checksum, NotUnderstoodError, find_checksum

NAME = "debian-12-x86_64.img"
A, B = "0123456789abcdef" * 4, "f" * 64


def found(text: str | bytes, *, name: str = NAME, alone: bool = False, sha1: bool = False) -> str | None:
    checksum = find_checksum(text if isinstance(text, bytes) else text.encode(), name, alone=alone, sha1=sha1)
    assert checksum is None or len(checksum.digest) == {"sha1": 40, "sha256": 64, "sha512": 128}[checksum.algorithm]
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
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{A}  {NAME}\n-----BEGIN PGP SIGNATURE-----\n\niQIz=\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n\n- {A}  {NAME}\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\r\n\r\n- SHA256 ({NAME}) = {A}\r\n",
        f"  {A}  {NAME}",
        f"\t{A}\t{NAME}",
        f"{A}\t*{NAME}  ",
        f"{A}   {NAME}",
        f"{A}\t\t./{NAME}",
        f"SHA2-256({NAME})= {A}",
        f"SHA2-256 ({NAME}) = {A}",
        f"SHA256\t({NAME})\t=\t{A}",
        f"\ufeff{A} *{NAME}\r\n",
        f"{B}  other\r{A}  {NAME}\r",
        f"\ufeff{A} *{NAME}\r\n".encode("utf-16-le"),
        f"\ufeff{A} *{NAME}\r\n".encode("utf-16-be"),
        f"{A} *{NAME}\r\n".encode("utf-16-le"),
        f"{A} *{NAME}\r\n".encode("utf-16-be"),
    ],
)
def test_lines_with_its_checksum(line: str | bytes) -> None:
    assert found(line) == A
    assert found(line, alone=True) == A


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{A}  {NAME}.sig",
        f"{A}  old-{NAME}",
        f"MD5 (other) = {A[:32]}",
        "<html>404 Not Found</html>",
    ],
)
def test_lines_without(line: str) -> None:
    assert found(line) is None


@pytest.mark.parametrize(
    "line",
    [
        f"{A}0  {NAME}",
        f"{A[1:]}  {NAME}",
        f"{A[:40]}  {NAME}",
        f"g{A[1:]}  {NAME}",
        f"MD5 ({NAME}) = {A[:32]}",
        f"SHA1 ({NAME}) = {A[:40]}",
        f"SHA512/256 ({NAME}) = {A}",
        f"SHA256 ({NAME}) = {A * 2}",
        f"{A}  ../{NAME}",
        f"<html>{A}  {NAME}</html>",
        f"{NAME}: {A}",
        f"{NAME} {A}",
        f"{A}  '{NAME}'",
        f"{B}  other\n{A},{NAME}\n",
    ],
)
def test_a_line_that_names_it_in_another_way_is_shown(line: str) -> None:
    with pytest.raises(NotUnderstoodError, match=r"^has a line of unknown form: ") as caught:
        find_checksum(line.encode(), NAME)
    assert NAME in str(caught.value)


@pytest.mark.parametrize("data", [b"\x89\x02\x33\xff", b"A" * 63, b"ABCD EF01  2345", b"see SHA256SUMS"])
def test_a_file_about_one_image_without_a_checksum_is_shown(data: bytes) -> None:
    with pytest.raises(NotUnderstoodError) as caught:
        find_checksum(data, NAME, alone=True)
    assert str(caught.value).isprintable()
    assert find_checksum(data, NAME) is None


def test_a_long_line_is_shown_in_part() -> None:
    with pytest.raises(NotUnderstoodError) as caught:
        find_checksum(NAME.encode() + b" " + b"x" * 100_000, NAME)
    assert len(str(caught.value)) < 200


def test_the_strongest_one_counts() -> None:
    text = f"SHA1 ({NAME}) = {A[:40]}\nSHA256 ({NAME}) = {A}\nSHA2-512({NAME})= {B + A}\n"
    assert found(text, sha1=True) == B + A
    assert found(f"{B + A}  {NAME}\n{A}  {NAME}\n") == B + A
    assert found(f"{A[:40]}  {NAME}\n{A}  {NAME}\n", sha1=True) == A


def test_what_counts_in_a_file_about_one_image() -> None:
    for text in (A, f"{A}\n", f"{A}  /srv/images/{NAME}\n", f"SHA256 (/srv/{NAME}) = {A}\n"):
        assert found(text, alone=True) == A
        with suppress(NotUnderstoodError):
            assert found(text) is None
    assert found(f"{A}  another\n", alone=True) is None


def test_sha1_as_sha1sum_writes_it() -> None:
    assert found(f"{A[:40]}  {NAME}\n", sha1=True) == A[:40]
    with pytest.raises(NotUnderstoodError):
        found(f"{A[:40]}  {NAME}\n")


def test_two_different_ones() -> None:
    with pytest.raises(ValueError, match="has 2 different SHA-256 checksums"):
        found(f"{A}  {NAME}\n{B}  {NAME}\n")


def test_names_as_sha256sum_escapes_them() -> None:
    assert found(f"\\{A}  a\\\\b\\nc\n", name="a\\b\nc") == A
    assert found(f"{A}  a\\nc\n", name="a\\nc") == A


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for alone in (True, False):
        with suppress(ValueError):
            assert find_checksum(data, NAME, alone=alone) is None


@given(st.text(alphabet=st.characters(exclude_characters="/\n\r\t ", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_name(name: str) -> None:
    for line in (f"{A}  {name}\n", f"{A} *{name}\n", f"SHA256 ({name}) = {A}\n"):
        assert found(line, name=name) == A


def test_a_long_line_takes_no_time() -> None:
    line = (f"SHA256 ({'(' * 500_000}" + f") = {A}" * 10_000).encode()
    assert find_checksum(line, NAME) is None


def test_shown() -> None:
    assert str(Checksum("sha1", "ab")) == "SHA-1 ab"
    assert str(Checksum("sha512", "ab")) == "SHA-512 ab"


BUILD = "openSUSE-Leap-15.6-Minimal-VM.x86_64-15.6.0-Cloud-Build19.52.qcow2"
ALIAS = "openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (ALIAS, f"{'a' * 64}  {BUILD}\n", True),
        (ALIAS, f"{'a' * 64}  ./x/{BUILD}\n", True),
        (ALIAS, f"SHA256 ({BUILD}) = {'A' * 64}\n", True),
        ("C-9-latest.x86_64.qcow2", f"SHA256 (C-9-20250101.0.x86_64.qcow2) = {'a' * 64}\n", True),
        (ALIAS, f"{'a' * 64}  {BUILD}\n{'b' * 64}  {BUILD}2\n", False),  # which of them?
        (ALIAS, f"{'a' * 64}  openSUSE-Leap-15.6-Minimal-VM.x86_64-kvm-and-xen.qcow2\n", False),
        (ALIAS, f"{'a' * 64}  openSUSE-Leap-15.5-Minimal-VM.x86_64-Cloud.qcow2\n", False),
        (ALIAS, f"{'a' * 64}  {BUILD}.xz\n", True),  # its bytes decide
        (ALIAS, f"{'a' * 40}  {BUILD}\n", False),
    ],
)
def test_a_longer_name_of_the_same_file(name: str, text: str, found: bool) -> None:
    """As the file beside the alias of an openSUSE image has it."""
    checksum = find_checksum(text.encode(), name, alone=True)
    assert (checksum is not None and checksum.digest == "a" * 64) == found
    with suppress(NotUnderstoodError):
        assert find_checksum(text.encode(), name) is None, "only in a file about one image"
