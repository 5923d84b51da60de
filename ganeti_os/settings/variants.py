# SPDX-License-Identifier: MIT
"""Variants of the OS: image+NAME has its settings in VARIANTS_DIR/NAME.conf; variants.list publishes it to Ganeti."""

from __future__ import annotations

import os

from ganeti_os.settings.shellfile import SettingsError

DEFAULT_VARIANT = "default"  # published from the start; it needs no file

_LIST = "variants.list"  # in the OS directory, where Ganeti starts every verb
_SIZE_LIMIT = 1 << 16  # bytes
_SHOWN = 20  # names in a message


def variant_file(directory: str, variant: str) -> str:
    """Return the path of a variant's settings; the name is as checked by Request."""
    return os.path.join(directory, f"{variant}.conf")


def published() -> list[str]:
    """Return the names in the OS directory's variants.list, as Ganeti reads it; empty if it cannot be read."""
    try:
        fd = os.open(_LIST, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO must not block
        with open(fd, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(_SIZE_LIMIT).splitlines()]
    except OSError:  # it only affects the text of a message
        return []
    return [line for line in lines if line and not line.startswith("#")]


def missing_variant(path: str, variant: str) -> SettingsError:
    """Return the error for a missing variant's file: a published variant is promised, another one was forced."""
    names = published()
    if variant in names:
        return SettingsError(
            f"{path}: does not exist, but the variant {variant} is published; create this file (it may be empty) or "
            f"take {variant} out of {os.path.realpath(_LIST)}"
        )
    others = [name for name in names if name.isprintable()][:_SHOWN]
    known = f"choose one of {', '.join(others)}" if others else f"publish variants in {_LIST} of the OS directory"
    return SettingsError(
        f"{path}: does not exist, and the variant {variant} is not published; create this file if the name is right, "
        f"or {known}"
    )
