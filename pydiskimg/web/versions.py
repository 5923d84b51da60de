# SPDX-License-Identifier: MIT
"""What headers say of the version of a file, and of the part of it that an answer has."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydiskimg.web.client import Answer

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


class ContentRange(NamedTuple):
    """First and last byte of the part that an answer has, and the size of the whole file; None where it is not told."""

    first: int | None = None
    last: int | None = None
    total: int | None = None


def validator(answer: Answer) -> str:
    """Return what tells this version of the file from others, byte for byte: a weak ETag does not."""
    tag = answer.headers.get("ETag", "")
    found = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    return found if found.isascii() and found.isprintable() and len(found) <= 1024 else ""


def content_range(answer: Answer) -> ContentRange:
    """Return what an answer 206 or 416 says of its part of the file."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None:
        return ContentRange()
    return ContentRange(*(int(text) if text and text != "*" else None for text in match.groups()))
