# SPDX-License-Identifier: MIT
"""Hostile text in messages: the one module that decides how names chosen by a guest or an image are shown.

Such a name must not control the terminal, forge a line of a log, disguise itself, or fill the screen. Therefore control
characters, line ends, escape sequences, marks that change the direction of writing and all other characters that are
not printable (by str.isprintable(), which also refuses surrogates and unassigned characters) become backslash escapes,
and long text is cut off.
"""

from __future__ import annotations

_LONGEST = 4096  # the kernel accepts no longer path
LINE = 1 << 16  # the limit of a whole line: it holds several names
_BYTES = range(0xDC80, 0xDD00)  # the surrogates that stand for bytes 0x80 to 0xff of a name that is not UTF-8
_CACHED = 1 << 12  # characters whose escapes are cached


class _Escapes(dict[int, "int | str"]):
    """Maps a character's number to its text. str.translate() calls no Python code for cached characters."""

    def __init__(self, kept: str, exact: bool) -> None:
        super().__init__({ord(character): ord(character) for character in kept})
        self._exact = exact

    def __missing__(self, number: int) -> int | str:
        shown = self._shown(chr(number), number)
        if number < _CACHED:
            self[number] = shown
        return shown

    def _shown(self, character: str, number: int) -> int | str:
        if character.isprintable() and not (self._exact and character == "\\"):
            return number
        if number in _BYTES or self._exact:
            raw = character.encode("utf-8", "surrogateescape" if number in _BYTES else "surrogatepass")
            return "".join(f"\\x{byte:02x}" for byte in raw)
        return character.encode("unicode_escape").decode("ascii")


_NAME, _TABBED, _EXACT = _Escapes("", False), _Escapes("\t", False), _Escapes("", True)


def printable(name: bytes | str, *, limit: int = _LONGEST, tabs: bool = False, exact: bool = False) -> str:
    """Return a name, as bytes or as from os.fsdecode(), in a form that is safe in a message: one line.

    limit counts bytes or characters; "..." replaces the rest. With tabs, tabs stay: for lines laid out by this package
    or by a program that the administrator runs. exact is for text that a program reads, as blkid prints labels: each
    escaped byte, and a backslash, becomes \\xNN, so that the text gives the exact bytes.
    """
    text, more = _beginning(name, limit)
    if text.isprintable() and not exact:
        return text + more
    return text.translate(_EXACT if exact else _TABBED if tabs else _NAME) + more


def quoted(name: bytes | str, *, limit: int = 100) -> str:
    """Return a name as printable() does, in quotes that the name cannot end: a backslash in it is doubled."""
    text, more = _beginning(name, limit)
    quote = '"' if "'" in text and '"' not in text else "'"
    text = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    return f"{quote}{text if text.isprintable() else text.translate(_NAME)}{quote}{more}"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(one) else 1 + (east_asian_width(one) in "WF") for one in text)


def is_address(text: str) -> bool:
    """True for an http:// or https:// address, as opposed to a file name."""
    return text[:8].lower().startswith(("http://", "https://"))


def shown_name(text: str) -> str:
    """Return the name of a file or an address for a message, without the secrets in an address."""
    if not is_address(text):
        return text
    shown, query, _ = without_password(text.partition("#")[0]).partition("?")
    return f"{shown}?..." if query else shown


def without_password(text: str) -> str:
    """Return a text for a message, without the user and password of an address in it, even if that is misspelt."""
    before, _, host = text.rpartition("@")
    if ":" not in before:
        return text
    import re  # imported here: commands that must start quickly show no addresses

    scheme = re.match(r"[a-z][a-z0-9+.-]*://|https?:/*", before, re.IGNORECASE)
    return f"{scheme[0] if scheme else ''}{host}"


def _beginning(name: bytes | str, limit: int) -> tuple[str, str]:
    text = name[:limit]
    more = "..." if len(name) > limit else ""
    return (text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")), more
