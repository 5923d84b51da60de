# SPDX-License-Identifier: MIT
"""A listing of a directory, for the message that a file is not in it."""

from __future__ import annotations

import os

from pydiskimg.text import quoted

_SHOWN = 20  # names in a message
_LISTED = 10_000  # names that are read


def listing(directory: str) -> str:
    """Return the contents of a directory, as the end of a sentence."""
    try:
        names = listed_names(directory)
    except FileNotFoundError:
        return f"the directory {directory} does not exist"
    except OSError as error:
        return f"the directory {directory} cannot be listed: {os.strerror(error.errno or 0)}"
    if not names:
        return f"the directory {directory} is empty"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{directory} contains: {', '.join(map(shown_name, names[:_SHOWN]))}{more}"


def listed_names(directory: str) -> list[str]:
    """Return the names in a directory in order, without hidden ones, at most _LISTED of them. Raises OSError."""
    with os.scandir(directory) as entries:
        listed = (entry.name for _, entry in zip(range(_LISTED), entries, strict=False))
        return sorted(name for name in listed if not name.startswith("."))


def shown_name(name: str) -> str:
    """Return the name, in quotes if it could be read as several words of a sentence."""
    return name if name.isprintable() and " " not in name else quoted(name)
