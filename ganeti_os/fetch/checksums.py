# SPDX-License-Identifier: MIT
"""The checksum of one file in a checksum file written by sha256sum, BSD's sha256, openssl or a person.

e3b0c442...  debian-12-x86_64.img            GNU, text
e3b0c442... *debian-12-x86_64.img            GNU, binary
SHA256 (debian-12-x86_64.img) = e3b0c442...  BSD, sha256sum --tag
SHA2-256(debian-12-x86_64.img)= e3b0c442...  openssl 3
e3b0c442...                                  alone, if the file is about one image only

Blanks may be tabs and precede a line; the text may be UTF-8 or UTF-16, and clear-signed (RFC 9580, section 7; the
signature is not checked).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.text import quoted

# By hashlib's names, the strongest first.
_DIGITS = {"sha512": 128, "sha256": 64, "sha1": 40}
_SHOWN = {"sha512": "SHA-512", "sha256": "SHA-256", "sha1": "SHA-1"}
_ESCAPES = re.compile(r"\\([\\nr])")
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}
_LINE_END = re.compile(r"\r\n|\n|\r")
_DASH_ESCAPE = "- "
_CLEAR_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_BLANKS = " \t"
_WORDS = re.compile(r"[0-9A-Za-z]+")
_MOST_SHOWN = 100  # characters of a line in a message


class NotUnderstoodError(ValueError):
    """A checksum file names the file in a line of unknown form; the text, a clause, shows the line."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """algorithm is hashlib's name: sha512, sha256 or sha1; digest is in lower-case hexadecimal digits."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{_SHOWN.get(self.algorithm, self.algorithm)} {self.digest}"


def find_checksum(data: bytes, name: str, *, alone: bool = False, sha1: bool = False) -> Checksum | None:
    """Return the strongest checksum in a checksum file for the file name; None if it does not name the file.

    alone means that the checksum file is about this one file. Then a checksum without a name counts, any directory may
    precede the name, and a longer name counts if it has the only checksum: openSUSE's images have the name of a build
    besides their published name. SHA-1 counts with sha1 only. Raises NotUnderstoodError for a file that names it in
    another form, ValueError, with a clause for a message, if it gives two.
    """
    lines = _lines(data)
    for algorithm, digits in _DIGITS.items():
        if algorithm == "sha1" and not sha1:
            continue
        found = {digest for line in lines for digest in _digests(line, algorithm, digits, name, alone=alone)}
        if len(found) > 1:
            raise ValueError(f"has {len(found)} different {_SHOWN[algorithm]} checksums for {name}")
        if found:
            return Checksum(algorithm, found.pop())
    if alone and (longer := _of_longer_name(lines, name)) is not None:
        return longer
    _refuse_unread(lines, name, alone=alone)
    return None


def _of_longer_name(lines: list[str], name: str) -> Checksum | None:
    """Return the only checksum if its name contains all words of this name, in their order.

    latest is a word that may be missing in it.
    """
    found = [match for line in lines for match in [_checksum_line(line)] if match is not None]
    if len(found) != 1:
        return None
    digest, longer = found[0]["digest"].lower(), _unescaped(found[0]) or ""
    words = iter(_WORDS.findall(longer.rpartition("/")[2]))
    if all(word in words for word in _WORDS.findall(name) if word != "latest"):
        algorithm = next(algorithm for algorithm, digits in _DIGITS.items() if digits == len(digest))
        return Checksum(algorithm, digest) if algorithm != "sha1" else None
    return None


def _checksum_line(line: str) -> re.Match[str] | None:
    matches = (re.fullmatch(form, line) for form in _forms("[0-9]+", *_DIGITS.values()))
    return next((match for match in matches if match is not None), None)


def _refuse_unread(lines: list[str], name: str, *, alone: bool) -> None:
    """Raise NotUnderstoodError for a line that names the file, or in a file about it alone may be its checksum."""
    named = re.compile(rf"(?<![\w.+-]){re.escape(name)}(?![\w.+-])")
    unread = [line for line in lines if named.search(line)]
    if alone and not unread and not any(_is_checksum(line) for line in lines):
        unread = lines
    if unread:
        raise NotUnderstoodError(f"has a line of unknown form: {quoted(unread[0], limit=_MOST_SHOWN)}")


def _is_checksum(line: str) -> bool:
    return _checksum_line(line) is not None


def _lines(data: bytes) -> list[str]:
    """Return the lines that are not empty, without surrounding blanks."""
    text = _decoded(data)
    lines = [line.strip(_BLANKS) for line in _LINE_END.split(text)]
    if _CLEAR_SIGNED in lines:
        lines = [line.removeprefix(_DASH_ESCAPE).lstrip(_BLANKS) for line in lines]
    return [line for line in lines if line]


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data[:1] == b"\0":
        return data.decode("utf-16-be", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _digests(line: str, algorithm: str, digits: int, name: str, *, alone: bool) -> Iterator[str]:
    """Yield the digest of a line that is about the file, in any of the forms."""
    if len(line) < digits:  # a file of half a million lines takes less than a second
        return
    for form in _forms(algorithm[3:], digits):
        match = re.fullmatch(form, line)
        if match is not None and _means(_unescaped(match), name, alone=alone):
            yield match["digest"].lower()


def _forms(bits: str, *digits: int) -> tuple[str, ...]:
    digest = f"(?P<digest>{'|'.join(f'[0-9A-Fa-f]{{{count}}}' for count in digits)})"
    return (
        rf"(?P<escaped>\\?){digest}(?: [ *]?(?P<name>.+))?",
        rf"(?P<escaped>\\?){digest}[ \t]++[*]?(?P<name>.+)",
        rf"(?P<escaped>\\?)SHA(?:-?|2-){bits}[ \t]*+\((?P<name>.+)\)[ \t]*+=[ \t]*+{digest}",
    )


def _unescaped(match: re.Match[str]) -> str | None:
    name: str | None = match["name"]
    if match["escaped"] and name is not None:
        return _ESCAPES.sub(lambda escape: _ESCAPED[escape[1]], name)
    return name


def _means(found: str | None, name: str, *, alone: bool) -> bool:
    if found is None:
        return alone
    return found in (name, f"./{name}") or (alone and found.endswith(f"/{name}"))
