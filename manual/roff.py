# SPDX-License-Identifier: MIT
"""Text as input of the man macros (man(7)), which groff and mandoc read without a warning."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from pydiskimg import __version__
from pydiskimg.cli.help_text import wrapped

_WIDTH = 76
_LITERAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def head(name: str, section: int) -> str:
    """Return the first lines of a page, which carry the day that SOURCE_DATE_EPOCH names, or today."""
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    comment = '.\\" Written by the package manual from the declarations of the program.\n'
    return f'{comment}.TH {name.upper()} {section} "{day}" "pydiskimg {__version__}"\n.nh\n.ad l\n'


def literal(text: str) -> str:
    """Return text as it is to be typed: hyphens are the ASCII character, so that it can be copied from the page."""
    return _at_start("".join(_LITERAL.get(character, character) for character in text))


def bold(text: str) -> str:
    return f"\\fB{literal(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{literal(text)}\\fR"


def prose(text: str) -> str:
    """Return a paragraph, in lines; options in it, such as --used, are literal."""
    return "".join(f"{_at_start(' '.join(map(_word, line.split())))}\n" for line in wrapped(text, _WIDTH))


def section(title: str, body: str) -> str:
    """Return a section, or nothing where its body is empty."""
    return f".SH {title.upper()}\n{body}" if body else ""


def entry(tag: str, text: str) -> str:
    """Return a tag, and the text that explains it, farther to the right."""
    return f".TP\n{tag}\n{prose(text)}"


def example(lines: Iterable[str]) -> str:
    """Return lines that are shown as they are."""
    return ".EX\n" + "".join(f"{literal(line)}\n" for line in lines) + ".EE\n"


def words(text: Iterable[str]) -> str:
    """Return formatted words in lines."""
    return "".join(f"{_at_start(line)}\n" for line in wrapped(" ".join(text), _WIDTH))


def references(pages: Iterable[tuple[str, int]]) -> str:
    """Return the names of other pages, with commas between them."""
    return ",\n".join(_references(pages)) + "\n"


def _references(pages: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, number in pages:
        yield f"\\fB{literal(name)}\\fR({number})"


def _word(word: str) -> str:
    bare = word.lstrip("(\"'")
    return literal(word) if bare.startswith("-") or "\\" in word else word


def _at_start(line: str) -> str:
    """Keep a line from being taken for a request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
