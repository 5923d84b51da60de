# SPDX-License-Identifier: MIT
"""The guest's host name, in the files where its distribution keeps it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import Renaming, is_unset, short
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import Span, substituted
from pydiskimg.system.edits.systemd import has_systemd
from pydiskimg.system.edits.text import ended, with_lines
from pydiskimg.text import printable, quoted

log = logging.getLogger(__name__)

DEBIAN, SUSE, RED_HAT, GENTOO = PATHS = (
    "/etc/hostname",  # and every distribution with systemd
    "/etc/HOSTNAME",  # SuSE; now a symlink to the former
    "/etc/sysconfig/network",  # Red Hat Linux to RHEL 6; a directory on SuSE
    "/etc/conf.d/hostname",
)
_VARIABLES = {RED_HAT: ("HOSTNAME",), GENTOO: ("hostname", "HOSTNAME")}  # the latter: baselayout 1
_WITH_DOMAIN = (SUSE, RED_HAT)  # whose domain a name that was never set gets
_NAME_LINE = re.compile(rb"^[ \t]*+([^#\s][^\r\n]*+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_-]{1,63}){0,32}\.?")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NEW_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST = 253  # characters of a name with its domain
_LONGEST_OF_KERNEL = 64  # characters: HOST_NAME_MAX, which sethostname(2) and systemd refuse to exceed
_SHOWN = 80  # characters of a name in a message


@dataclass(frozen=True, slots=True)
class _NameSpot:
    """A location for a name in a file; variable is the one that it is assigned to; span is None for a variable or
    command.
    """

    path: str
    span: Span | None
    variable: str = ""

    @property
    def name(self) -> str:
        """The name; empty for a placeholder or an invalid name."""
        text = self.span.text.strip().decode("latin-1") if self.span else ""
        return "" if is_unset(text) or not _NAME.fullmatch(text) else text

    @property
    def shown(self) -> str:
        if self.span is None:
            return "not plain text"
        return printable(self.span.text.strip(), limit=_SHOWN) or "(none)"


def check_host_name(name: str) -> None:
    """Raise ValueError unless name is a host name, with or without its domain (RFC 1123)."""
    if not _NEW_NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ValueError(
            f"{quoted(name, limit=_SHOWN)} is not a host name; expected letters, digits and hyphens, in labels of at "
            f"most 63 characters with dots between them, {_LONGEST} in all"
        )


def host_names(draft: Draft) -> list[str]:
    """Return the names of the system in its own files, in the order of PATHS."""
    return [spot.name for spot in _spots(draft) if spot.name]


def change_host_name(draft: Draft, renaming: Renaming) -> None:
    """Write the new name at each location that has a host name or is empty; make a file if there is none."""
    spots = list(_spots(draft))
    for path in dict.fromkeys(spot.path for spot in spots):
        _change_file(draft, path, [spot for spot in spots if spot.path == path], renaming)
    if not spots:
        _make(draft, renaming)


def _change_file(draft: Draft, path: str, spots: list[_NameSpot], renaming: Renaming) -> None:
    data = draft.read(path) or b""
    replacements = []
    told: dict[str, None] = {}
    for spot in spots:
        if spot.span is not None and not renaming.is_new(spot.name):
            new = _new_name(spot, renaming)
            replacements.append((spot.span, _framed(data, spot, new)))
            told[f"host name {spot.shown} is now {new}"] = None
    changed = substituted(data, replacements)
    for spot in {spot.variable: spot for spot in spots}.values():  # the last assignment counts
        if spot.span is None:
            new = _new_name(spot, renaming)
            changed = with_lines(changed, f"{spot.variable}={new}".encode("ascii"))
            told[f"host name {new} is assigned at the end, after one that is not plain text"] = None
    draft.change(path, changed, ", ".join(list(told)[:10]))


def _new_name(spot: _NameSpot, renaming: Renaming) -> str:
    """Return the new name in the form of the old one, or in the distribution's if there is none."""
    if spot.name:
        return _whole(renaming) if "." in spot.name else short(renaming.new)
    if spot.span is not None and spot.span.text.strip().startswith(b"localhost."):
        return _whole(renaming)
    return _whole(renaming) if spot.path in _WITH_DOMAIN else short(renaming.new)


def _whole(renaming: Renaming) -> str:
    """Return the new name with its domain, unless it would be too long for the kernel: then the system had none."""
    return renaming.new if len(renaming.new) <= _LONGEST_OF_KERNEL else short(renaming.new)


def _framed(data: bytes, spot: _NameSpot, new: str) -> bytes:
    """Put a name that is appended to a file of lines on a line of its own."""
    text = new.encode("ascii")
    if spot.variable or (spot.span and spot.span.text.strip()):
        return text
    return (ended(data)[len(data) :] if data.strip() else b"") + text + b"\n"


def _make(draft: Draft, renaming: Renaming) -> None:
    data = draft.read(RED_HAT) if draft.is_file(RED_HAT) else None
    if data is not None and not has_systemd(draft):
        draft.change(RED_HAT, with_lines(data, f"HOSTNAME={_whole(renaming)}".encode("ascii")), "a host name")
        return
    if draft.is_dangling(DEBIAN):
        draft.remove(DEBIAN, "a broken symbolic link is removed")
    draft.change(DEBIAN, f"{short(renaming.new)}\n".encode("ascii"), f"made, with the host name {short(renaming.new)}")


def _spots(draft: Draft) -> Iterator[_NameSpot]:
    for path in PATHS:
        if path == RED_HAT and not draft.is_file(path):
            continue
        data = draft.read(path)
        if data is None:
            continue
        if path in _VARIABLES:
            yield from (_NameSpot(path, value.span, value.name) for value in shell_values(data, _VARIABLES[path]))
            continue
        yield _NameSpot(path, _name_line(data))


def _name_line(data: bytes) -> Span:
    """Return the location of the name, or of a new one."""
    line = _NAME_LINE.search(data)
    if line is not None:
        text = line.group(1).rstrip()
        return Span(line.start(1), line.start(1) + len(text), text)
    return Span(len(data) if data.strip() else 0, len(data), b"")
