# SPDX-License-Identifier: MIT
"""The checksum of one file in a checksum file, whoever wrote that: sha256sum, BSD's sha256, openssl, or by hand.

e3b0c442...  debian-12-x86_64.img           GNU, text
e3b0c442... *debian-12-x86_64.img           GNU, binary
SHA256 (debian-12-x86_64.img) = e3b0c442... BSD, sha256sum --tag
e3b0c442...                                 alone, where the file is about one image only
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_DIGITS = {"sha256": 64, "sha1": 40}
_ESCAPES = re.compile(r"\\([\\nr])")
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Checksum:
    """algorithm is hashlib's name of it, sha256 or sha1; digest is in lower-case hexadecimal digits."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{'SHA-256' if self.algorithm == 'sha256' else 'SHA-1'} {self.digest}"


def find_checksum(data: bytes, name: str, algorithm: str, *, alone: bool = False) -> Checksum | None:
    """Return the checksum that a checksum file gives for the file name; None when it gives none.

    alone tells that the checksum file is about this one file: then a checksum without a name counts, and whatever
    directory is written before the name. Raises ValueError, with a clause for a message, when it gives two.
    """
    digests = {digest for digest, found in _lines(data, algorithm) if _means(found, name, alone=alone)}
    if len(digests) > 1:
        raise ValueError(f"has {len(digests)} different checksums for {name}")
    return Checksum(algorithm, digests.pop()) if digests else None


def _means(found: str | None, name: str, *, alone: bool) -> bool:
    if found is None:
        return alone
    return found in (name, f"./{name}") or (alone and found.endswith(f"/{name}"))


def _lines(data: bytes, algorithm: str) -> Iterator[tuple[str, str | None]]:
    """Yield digest and name (None: there is none) of each line that has a checksum of this algorithm."""
    digest = f"(?P<digest>[0-9A-Fa-f]{{{_DIGITS[algorithm]}}})"
    word = f"SHA-?{algorithm[3:]}"
    forms = [
        re.compile(rf"(?P<escaped>\\?){digest}(?: [ *]?(?P<name>.+))?"),
        re.compile(rf"(?P<escaped>\\?){word} ?\((?P<name>.+)\) ?= ?{digest}"),
    ]
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.rstrip("\r\t ")
        match = next(filter(None, (form.fullmatch(text) for form in forms)), None)
        if match is not None:
            found: str | None = match["name"]
            if match["escaped"] and found is not None:
                found = _ESCAPES.sub(lambda escape: _ESCAPED[escape[1]], found)
            yield match["digest"].lower(), found
