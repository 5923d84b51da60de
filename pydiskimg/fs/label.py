# SPDX-License-Identifier: MIT
"""Labels of file systems and swap areas."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError

LABEL_SIZE = 16  # bytes, of ext2/3/4 (s_volume_name) and of swap (sws_volume)


def encoded_label(label: str, where: str) -> bytes:
    """Return the label as bytes; where is the disk's name. Raises FileSystemError for a label that does not fit."""
    name = label.encode("utf-8", "surrogateescape")
    if len(name) > LABEL_SIZE or b"\0" in name:
        raise FileSystemError(
            f"{where}: the label {label!r} has {len(name)} bytes; a label has at most {LABEL_SIZE} and no zero byte; "
            "nothing was written"
        )
    return name
