# SPDX-License-Identifier: MIT
"""What stops a change, said without the path: that is added where it is known (tree.py)."""

from __future__ import annotations

import errno


class UnfitFileError(Exception):
    """A file is not what is to be done with it; the text goes on after "it", number is an errno."""

    def __init__(self, text: str, number: int = errno.EINVAL) -> None:
        super().__init__(text)
        self.number = number


class OutOfSpaceError(Exception):
    """No block, or no inode, is free; the text says which."""
