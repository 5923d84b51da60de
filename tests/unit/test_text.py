# SPDX-License-Identifier: MIT
"""Hostile text: what a guest, an image or a server may put into a name, and that one module alone decides its form."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pydiskimg.text import LINE, printable, quoted
from tests.fixtures.checkout import ROOT

HOSTILE = {
    "NUL": ("\0", r"\x00"),
    "line feed, which begins a forged line": ("a\nimage create: done", r"a\nimage create: done"),
    "carriage return, which overwrites the line": ("\rb", r"\rb"),
    "tab": ("\t", r"\t"),
    "vertical tab and form feed": ("\v\f", r"\x0b\x0c"),
    "backspace": ("a\b", r"a\x08"),
    "bell": ("\a", r"\x07"),
    "delete": ("\x7f", r"\x7f"),
    "escape sequence that clears the screen": ("\x1b[2J", r"\x1b[2J"),
    "escape sequence that sets the title": ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
    "the same as one C1 character": ("\x9b2J", r"\x9b2J"),
    "next line, of C1": ("\x85", r"\x85"),
    "line and paragraph separator": ("\u2028\u2029", r"\u2028\u2029"),
    "right-to-left override": ("a\u202etxt.exe", r"a\u202etxt.exe"),
    "left-to-right and right-to-left mark": ("\u200e\u200f", r"\u200e\u200f"),
    "embeddings and isolates": ("\u202a\u202b\u202c\u202d\u2066\u2067\u2068\u2069", None),
    "Arabic letter mark": ("\u061c", r"\u061c"),
    "zero-width space, joiners and no-break space": ("\u200b\u200c\u200d\ufeff", r"\u200b\u200c\u200d\ufeff"),
    "soft hyphen": ("\xad", r"\xad"),
    "no-break space": ("\xa0", r"\xa0"),
    "wide space": ("\u3000", r"\u3000"),
    "interlinear annotation": ("\ufff9", r"\ufff9"),
    "tag character": ("\U000e0041", r"\U000e0041"),
    "private use": ("\ue000", r"\ue000"),
    "not a character": ("\uffff", r"\uffff"),
    "unassigned": ("\U0003ffff", r"\U0003ffff"),
    "half of a surrogate pair": ("\ud800", r"\ud800"),
    "bytes that are not UTF-8": ("\udcff\udc80", r"\xff\x80"),
}
HARMLESS = ["", "plain name", "é", "日本語", "\N{SNOWMAN}", "\N{OLD ITALIC LETTER A}", "a\\b", "it's", "%s {0} $(x)"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_characters_are_escaped(text: str, shown: str | None) -> None:
    for form in (printable(text), printable(text, exact=True), quoted(text), printable(text, limit=LINE)):
        assert form.isprintable()
        assert form.isascii()
    assert shown is None or [printable(text), printable(text)] == [shown, shown]  # what was kept is the same
    assert shown is None or quoted(text) == f"'{shown}'"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_characters_stay(text: str) -> None:
    assert printable(text) == printable(text.encode()) == text


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"a\xc3"])
def test_bytes_that_are_not_utf_8(raw: bytes) -> None:
    expected = "".join(chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in raw)
    assert printable(raw) == printable(raw.decode("utf-8", "surrogateescape")) == expected


def test_what_is_too_long_is_cut_off() -> None:
    assert printable("x" * 4096) == "x" * 4096
    assert printable("x" * 4097) == printable(b"x" * 4097) == "x" * 4096 + "..."
    assert printable("é" * 9, limit=3) == "ééé..."
    assert quoted(b"x" * 101) == f"'{'x' * 100}'..."
    assert len(printable(b"\x1b" * (1 << 24))) < 5 * 4096


def test_tabs_stay_in_a_line_that_was_laid_out() -> None:
    assert printable("a\tb\x1b", tabs=True) == "a\tb\\x1b"


def test_an_exact_form_says_which_bytes_there_are() -> None:
    assert printable("a\\b\u202e\n\xff é", exact=True) == r"a\x5cb\xe2\x80\xae\x0aÿ é"
    assert printable(b"\xff\\x5c", exact=True) == r"\xff\x5cx5c"


@pytest.mark.parametrize("text", ["it's", 'a"b', "'\"", "\\", "\\'", "plain", "a\\nb"])
def test_quotes_cannot_be_ended_by_a_name(text: str) -> None:
    assert quoted(text) == repr(text)
    assert ast.literal_eval(quoted(text)) == text


# What the operator or the calling code said, not a guest.
OURS = {"format", "format_name", "compression_type", "snapshot", "fs_type", "kind", "label", "options", "__name__"}
OPERATORS = (
    *("pydiskimg.cli", "pydiskimg.units", "pydiskimg.disks", "ganeti_os.settings"),
    *("ganeti_os.request", "ganeti_os.definition", "ganeti_os.main", "ganeti_os.guest.file_command"),
    "ganeti_os.guest.facts.nics",
)
# A terminal's encoding may lack a character of a name.
STANDARD_OUTPUT = ("pydiskimg/cli/__init__.py", "backslashreplace")


def without_repr(tree: ast.Module) -> ast.Module:
    """Leave out what classes show developers of themselves, as Python's own do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.body = [each for each in node.body if getattr(each, "name", "") != "__repr__"] or [ast.Pass()]
    return tree


def escapes(path: Path, module: str) -> list[str]:
    """What in a module gives text another form by itself."""
    found = []
    for node in ast.walk(without_repr(ast.parse(path.read_text()))):
        if isinstance(node, ast.Constant) and node.value in ("unicode_escape", "backslashreplace"):
            found += [node.value] if (str(path.relative_to(ROOT)), node.value) != STANDARD_OUTPUT else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("repr", "ascii"):
            found.append(f"{node.func.id}()")
        elif isinstance(node, ast.Attribute) and node.attr == "isprintable" and is_about_a_character(node):
            found.append("isprintable() of single characters")
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if isinstance(node.exc.func, ast.Name) and node.exc.func.id == "AttributeError":
                node.exc.args = []  # of our own names
        elif isinstance(node, ast.FormattedValue) and node.conversion in (ord("r"), ord("a")):
            name = ast.unparse(node.value).rpartition(".")[2]
            if not module.startswith(OPERATORS) and name not in OURS:
                found.append(f"{{{ast.unparse(node.value)}!r}}")
    return found


def is_about_a_character(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("char", "character", "c")


def test_no_other_module_escapes_by_itself() -> None:
    found = {}
    for package in ("pydiskimg", "ganeti_os"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if module != "pydiskimg.text" and (own := escapes(path, module)):
                found[module] = own
    assert found == {}
