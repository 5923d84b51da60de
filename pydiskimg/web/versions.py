# SPDX-License-Identifier: MIT
"""The version of a file, and the part of it in an answer, by the headers."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydiskimg.web.client import Answer

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


class ContentRange(NamedTuple):
    """First and last byte of the part in an answer, and the size of the whole file; None if not stated."""

    first: int | None = None
    last: int | None = None
    total: int | None = None


def validator(answer: Answer) -> str:
    """Return what identifies this version of the file byte for byte: a weak ETag does not."""
    tag = answer.headers.get("ETag", "")
    found = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    return found if found.isascii() and found.isprintable() and len(found) <= 1024 else ""


def content_range(answer: Answer) -> ContentRange:
    """Return the part of the file that the headers of a 206 or 416 answer state."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None:
        return ContentRange()
    return ContentRange(*(int(text) if text and text != "*" else None for text in match.groups()))
