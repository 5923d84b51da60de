# SPDX-License-Identifier: MIT
"""The values of convert -l: a snapshot's id or name, or, as in qemu-img, snapshot.id=ID,snapshot.name=NAME."""

from __future__ import annotations

from os import fsdecode

from pydiskimg.cli.image_options import split_options
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.raw import open_image_file

_KEYS = ("snapshot.id", "snapshot.name")


def chosen_snapshot(path: str, format_name: str | None, text: str) -> str:
    """Return the id or name for open_image(); for snapshot.id= and snapshot.name= the id of the one with both.

    Raises UnsupportedImageError if no snapshot matches, and for another key.
    """
    if not text.startswith("snapshot."):
        return text
    wanted = _wanted(text)
    with open_image_file(path) as file:
        snapshots = FORMATS[format_name or detect_image(file)].snapshots(file)
        if snapshots is None:
            return text  # open_image() reports that there are none
        for snapshot in snapshots:
            own = {"snapshot.id": snapshot.id, "snapshot.name": snapshot.name}
            whole = {"snapshot.id": fsdecode(snapshot.whole_id), "snapshot.name": fsdecode(snapshot.whole_name)}
            if all(wanted[key] in (own[key], whole[key]) for key in wanted):
                return whole["snapshot.id"]
    raise UnsupportedImageError(f"{file.name}: has no snapshot {text!r}; list them with: pydiskimg snapshot -l")


def _wanted(text: str) -> dict[str, str]:
    wanted = {}
    for pair in _pairs(text):
        key, _, value = pair.partition("=")
        if key not in _KEYS or not value:
            raise UnsupportedImageError(
                f"-l {text}: {pair!r} is not valid; expected snapshot.id=ID, snapshot.name=NAME, or an id or name"
            )
        wanted[key] = value
    return wanted


def _pairs(text: str) -> list[str]:
    try:
        return split_options(text)
    except ValueError as error:
        raise UnsupportedImageError(f"-l {text}: {error}") from None
