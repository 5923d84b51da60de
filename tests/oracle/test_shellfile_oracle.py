# SPDX-License-Identifier: MIT
"""Whatever a settings file is read as, the shell agrees."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ganeti_os.settings.shellfile import SettingsError, parse_shell_text

pytestmark = pytest.mark.oracle

NAMES = ("V_A", "V_B", "V_AB")
PRINT = "".join(f'printf "%s\\0" "${{{name}-unset}}";' for name in NAMES)


def shell_values(shell: list[str], text: bytes) -> dict[str, str]:
    """What the shell says; it must accept the text and stay silent."""
    script = text + b"\n" + PRINT.encode()
    done = subprocess.run(
        [*shell, "-s"],
        input=script,
        capture_output=True,
        check=False,
        env={"LC_ALL": "C.UTF-8", "HOME": "/home"},
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = done.stdout.decode().split("\0")[:-1]
    return {name: value for name, value in zip(NAMES, found, strict=True) if value != "unset"}


def check(shells: list[list[str]], text: bytes) -> None:
    found = {name: item.value for name, item in parse_shell_text(text, "file").items() if name in NAMES}
    for shell in shells:
        assert shell_values(shell, text) == found, text


@pytest.fixture(scope="module")
def shells() -> list[list[str]]:
    return [["sh"], ["bash", "--posix"]]


PLAIN = st.text(st.sampled_from("aZ09_-+./,:=#%^@!*?[]{}~é"), min_size=1, max_size=6)
SINGLE = st.text(st.sampled_from('a \t\n"\\$`#;&|<>()é~'), max_size=8).map(lambda text: f"'{text}'")
DOUBLE = st.lists(
    st.sampled_from(["a", " ", "\n", "'", "#", ";", "&", "~", '\\"', "\\\\", "\\$", "\\`", "\\x", "\\\n", "é", "$ "]),
    max_size=8,
).map(lambda parts: f'"{"".join(parts)}"')
ESCAPED = st.sampled_from(list(" \"'\\$`#;&|<>()ax~é")).map(lambda character: f"\\{character}")
WORD = st.lists(st.one_of(PLAIN, SINGLE, DOUBLE, ESCAPED), max_size=4).map("".join)
ASSIGNMENT = st.tuples(st.sampled_from(NAMES), WORD).map("=".join)
REFERENCE = st.sampled_from(['V_B="$V_A"x', "V_AB=${V_A}/y", 'V_A="<$V_A>"', "V_B=$V_A$V_A"])
LINE = st.tuples(
    st.sampled_from(["", " ", "export ", "\t"]),
    st.lists(ASSIGNMENT, min_size=1, max_size=3).map(" \\\n".join),
    st.sampled_from(["", ";", " ;", ' # it\'s "a" comment', "  "]),
).map("".join)


@given(st.lists(st.one_of(LINE, LINE, REFERENCE), min_size=1, max_size=6))
@settings(max_examples=250, suppress_health_check=list(HealthCheck))
def test_files_as_people_write_them(tool: Callable[[str], str], shells: list[list[str]], lines: list[str]) -> None:
    tool("bash")
    text = ("V_A=first\n" + "\n".join(lines)).encode()
    try:
        parse_shell_text(text, "file")
    except SettingsError as error:  # the few things that are refused on purpose
        assume("home directory" not in str(error) and "must be quoted" not in str(error))
        raise
    check(shells, text)


TOKENS = [
    *("V_A=", "V_B=", "V_A", "$V_A", "${V_A}", "$V_AB", "x", "é", "export ", "="),
    *("'", '"', "\\", "\\\n", "$", "{", "}", "~", ":", "#", ";", "\n", "\n", " ", " ", "\t", "*", "!", "-", "&", "("),
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14))
@settings(max_examples=4000, suppress_health_check=list(HealthCheck))
def test_whatever_is_accepted_means_the_same(
    tool: Callable[[str], str], shells: list[list[str]], tokens: list[str]
) -> None:
    tool("bash")
    text = ("V_A=a V_AB='b c'\n" + "".join(tokens)).encode()
    try:
        parse_shell_text(text, "file")
    except SettingsError:
        return
    check(shells, text)
