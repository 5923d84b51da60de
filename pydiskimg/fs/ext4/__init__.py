# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4: the on-disk layout, and a maker of empty file systems."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.fs.ext4.make import ExtInfo, make_ext

__all__ = ["ExtInfo", "make_ext"]


def __getattr__(name: str) -> object:
    """Import what is asked for only then: who reads a file system need not wait for its maker."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module("pydiskimg.fs.ext4.make"), name)
    globals()[name] = value
    return value
