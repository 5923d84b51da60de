# SPDX-License-Identifier: MIT
"""Settings files: what is read, and the messages about the rest."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.settings.shellfile import Assignment, SettingsError, parse_shell_text, read_shell_file


def values(text: bytes) -> dict[str, str]:
    return {name: found.value for name, found in parse_shell_text(text, "file").items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", {}),
        (b"# only a comment\n\n   # another", {}),
        (b"A=1", {"A": "1"}),
        (b"A=", {"A": ""}),
        (b"A=1 B=2;C=3 ; D=4 # comment\nE=5", {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}),
        (b"export A=1 B=2\nexport A B", {"A": "1", "B": "2"}),
        (b"A='a b'\"c d\"e\\ f", {"A": "a bc de f"}),
        (b"A='\\'B=2", {"A": "\\B=2"}),
        (b'A="\\x \\" \\\\ \\$ \\`"', {"A": '\\x " \\ $ `'}),
        (b"A=a#b B='#'", {"A": "a#b", "B": "#"}),
        (b"A=one\\\ntwo\nB=3 \\\n C=4", {"A": "onetwo", "B": "3", "C": "4"}),
        (b"A='one\ntwo'", {"A": "one\ntwo"}),
        (b'A=/x B="$A/y" C=${A}z', {"A": "/x", "B": "/x/y", "C": "/xz"}),
        (b"A=1\nA=2", {"A": "2"}),
        (b'A="5$" B=$', {"A": "5$", "B": "$"}),
        (b"\xef\xbb\xbfA=1\r\nB='x'\r\n", {"A": "1", "B": "x"}),
        (b"A=1\r", {"A": "1"}),
        ("A=größe".encode(), {"A": "größe"}),
        (b"A=a~b B=-x C=*.img D={a}", {"A": "a~b", "B": "-x", "C": "*.img", "D": "{a}"}),
    ],
)
def test_reads(text: bytes, expected: dict[str, str]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (b"A=1\n. /etc/other", 2, "found '.', expected NAME=value"),
        (b"source /etc/other", 1, "found 'source'"),
        (b"\nif [ -f x ]; then", 2, "found 'if'"),
        (b": ${A:=1}", 1, "found ':'"),
        (b"A=1\nB = 2", 2, "found 'B'"),
        (b"A= 1", 1, "found '1'"),
        (b"A+=1", 1, "found 'A+=1'"),
        (b"A[0]=1", 1, "found 'A[0]=1'"),
        (b"1A=1", 1, "found '1A=1'"),
        (b"A=1 ls", 1, "found 'ls'"),
        (b"A=1 export B=2", 1, "found 'export'"),
        (b"readonly A=1", 1, "found 'readonly'"),
        (b"export", 1, "export without a name"),
        (b"export A", 1, "found 'A'"),
        (b"A=1;;", 1, "; without an assignment"),
        (b"; A=1", 1, "; without an assignment"),
        (b"A=1 & B=2", 1, "found '&'"),
        (b"A=1&", 1, "found '&' outside of quotes"),
        (b"A=(1 2)", 1, "found '(' outside of quotes"),
        (b"A=1>x", 1, "found '>' outside of quotes"),
        (b"A=`id`", 1, "found '`' outside of quotes"),
        (b'A="`id`"', 1, "found '`' in double quotes"),
        (b"A=$(id)", 1, "found a $"),
        (b'A="$((1))"', 1, "found a $"),
        (b"A=${B:-1}", 1, "found a $"),
        (b"A=1 B=${A%x}", 1, "found a $"),
        (b"A=$1", 1, "found a $"),
        (b"A=$$", 1, "found a $"),
        (b"A=$'x'", 1, "found $'"),
        (b'A=$"x"', 1, 'found $"'),
        (b"A=1\nB=$C", 2, "$C is used, but no line above assigns C"),
        (b"A=$A", 1, "$A is used"),
        (b"export A=1 B=$A", 1, "$A is used"),  # sh expands all of it first
        (b"A='x y'\nexport B=$A", 2, "must be quoted"),
        (b"A=~/x", 1, "home directory"),
        (b"A=/x:~", 1, "home directory"),
        (b"A=\\\n~", 2, "home directory"),
        (b"\n\nA='x\n\n", 3, "the single quote opened here"),
        (b'\nA="x\nB=1\n', 2, "the double quote opened here"),
        (b"A=\\", 1, "backslash at the end"),
        (b"A=1\nB=\x00", 2, "control character 0x00"),
        (b"A=1\rB=2", 1, "control character 0x0d"),
        (b"A=1\n\xff=2", 2, "found byte 0xff, expected text in UTF-8"),
        ("A=1".encode("utf-16"), 1, "found byte 0xff"),
        (b"\xc2\xa0A=1", 1, "expected NAME=value"),
    ],
)
def test_refuses_with_the_line(text: bytes, line: int, part: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_shell_text(text, "/etc/x")
    assert str(caught.value).startswith(f"/etc/x:{line}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"ROOT_PASSWORD_HASH= '$6$HIDDEN'",
        b"ROOT_PASSWORD_HASH=\n'$6$HIDDEN'",
        b"ROOT-PASSWORD-HASH='$6$HIDDEN'",
        b"ROOT_PASSWORD_HASH=pass HIDDEN",
        b"ROOT_PASSWORD_HASH=pass;HIDDEN",
        b'ROOT_PASSWORD_HASH="pa$HIDDEN"',
        b"IMAGE_URL=https://user:pass HIDDEN@example.org",
        b'IMAGE_URL="https://user:pa$HIDDEN@example.org"',
        b"DDNS_KEY = HIDDEN",
        b"DDNS_KEY= HIDDEN",
    ],
)
def test_a_secret_that_a_blank_or_quote_tore_apart_is_not_shown(text: bytes) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_shell_text(b"A=1\n" + text, "/etc/x")
    assert str(caught.value).startswith("/etc/x:")
    assert "HIDDEN" not in str(caught.value)


def test_lines_and_use() -> None:
    found = parse_shell_text(b"BASE=/x\n\nDIR='a\nb'$BASE\nDIR2=1", "file")
    assert found == {
        "BASE": Assignment("/x", 1, used=True),
        "DIR": Assignment("a\nb/x", 3),
        "DIR2": Assignment("1", 5),
    }


def test_doubling_is_bounded() -> None:
    with pytest.raises(SettingsError, match="expand to more than"):
        parse_shell_text(b"A=xxxxxxxx\n" + b'A="$A$A"\n' * 60, "file")


@pytest.mark.parametrize(
    "unit", [b"A=1 ", b"A=1\n", b"~", b"'x'", b"\\x", b"\\\n", b'"x"', b":", b"#", b";A=1", b"A=$A "]
)
def test_time_grows_with_the_size_only(unit: bytes) -> None:
    seconds = {}
    for count in (20_000, 80_000):
        started = time.process_time()
        with suppress(SettingsError):
            parse_shell_text(b"A=x" + unit * count, "file")
        seconds[count] = time.process_time() - started
    assert seconds[80_000] < max(1.0, 8 * seconds[20_000])  # four times as much text: 16 times, were it quadratic


def refusal(data: bytes) -> str:
    """The sentence that refuses data, or nothing."""
    try:
        parse_shell_text(data, "file")
    except SettingsError as error:
        return str(error)
    return ""


@given(st.binary(max_size=200))
def test_bytes_give_values_or_one_sentence(data: bytes) -> None:
    assert refusal(data).startswith("file:") or not refusal(data)


def test_mutations_give_values_or_one_sentence() -> None:
    text = b'# comment\nexport A="x \\" $B" B=\'y z\'; C=a\\ b # c\nD=${A}x \\\n E=\n'.replace(b"$B", b"")
    choose = random.Random(1)
    for _ in range(3000):
        changed = bytearray(text)
        for _ in range(choose.randint(1, 4)):
            changed[choose.randrange(len(changed))] = choose.choice(b"\0\n\r '\"\\$`{}#;=Ax~\xff")
        assert refusal(bytes(changed)).startswith("file:") or not refusal(bytes(changed))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    with pytest.raises(FileNotFoundError):
        read_shell_file(str(path))
    path.write_bytes(b"A=1\n")
    assert read_shell_file(str(path)) == {"A": Assignment("1", 1)}
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(SettingsError, match="larger than 1048576 bytes"):
        read_shell_file(str(path))
    with pytest.raises(SettingsError, match="expected a file of assignments"):
        read_shell_file(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingsError, match="expected a file of assignments"):
        read_shell_file(str(tmp_path / "fifo"))
