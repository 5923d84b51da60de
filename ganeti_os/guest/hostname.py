# SPDX-License-Identifier: MIT
"""The guest's host name, in whichever files its distribution keeps it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ganeti_os.guest.draft import Draft, GuestError
from ganeti_os.guest.network.shell_values import shell_values
from ganeti_os.guest.network.span import Span, substituted
from ganeti_os.guest.renaming import Renaming, is_unset, short

log = logging.getLogger(__name__)

DEBIAN, SUSE, RED_HAT, GENTOO = PATHS = (
    "/etc/hostname",  # and every distribution with systemd
    "/etc/HOSTNAME",  # SuSE; a symlink to the former by now
    "/etc/sysconfig/network",  # Red Hat Linux to RHEL 6; a directory on SuSE
    "/etc/conf.d/hostname",
)
_VARIABLES = {RED_HAT: ("HOSTNAME",), GENTOO: ("hostname", "HOSTNAME")}  # the latter: baselayout 1
_WITH_DOMAIN = (SUSE, RED_HAT)  # where a name that was never set gets the domain
_NAME_LINE = re.compile(rb"^[ \t]*+([^#\s][^\r\n]*+)", re.MULTILINE)
_SHOWN = 80  # characters of a name in a message
_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place that holds a name; span is None where it is a variable or a command."""

    path: str
    span: Span | None

    @property
    def name(self) -> str:
        return self.span.text.strip().decode("latin-1") if self.span else ""

    @property
    def shown(self) -> str:
        text = self.span.text.strip().decode("utf-8", "backslashreplace") if self.span else ""
        return repr(text[:_SHOWN])

    @property
    def is_unset(self) -> bool:
        return self.span is not None and is_unset(self.name)


def check_host_name(draft: Draft, renaming: Renaming) -> None:
    """Raise GuestError when the guest's name is neither the old nor the new one, cannot be read or has no place.

    The first place that holds a name decides: it is the one that the system reads.
    """
    place = next((place for place in _places(draft) if not place.is_unset), None)
    if place is None:
        if draft.is_dangling(DEBIAN):
            raise GuestError(f"{DEBIAN} is a symbolic link to a file that the guest does not have; nothing was changed")
        return
    if place.span is None:
        text = f"{place.path} does not say the host name in plain text (a variable, a command or several lines)"
        raise GuestError(f"{text}; write {renaming.new} there in the guest; nothing was changed")
    if renaming.renamed(place.name) is None:
        text = f"{place.path} says that the guest's host name is {place.shown}"
        expected = f"expected the old name, {renaming.old}, or the new one, {renaming.new}, with or without the domain"
        raise GuestError(f"{text}; {expected}; nothing was changed")


def change_host_name(draft: Draft, renaming: Renaming) -> None:
    """Write the new name in each place that holds the old one or none; where there is no place, make one."""
    places = list(_places(draft))
    for path in dict.fromkeys(place.path for place in places):
        _change_file(draft, path, [place for place in places if place.path == path], renaming)
    if not places:
        _make(draft, renaming)


def _change_file(draft: Draft, path: str, places: list[_Place], renaming: Renaming) -> None:
    replacements = []
    stays: dict[str, None] = {}
    for place in places:
        new = _new_name(place, renaming)
        if place.span is None:
            stays["one that is not plain text"] = None
        elif new is None:
            stays[place.shown] = None
        elif new != place.name:
            replacements.append((place.span, _framed(draft.read(path) or b"", place, new)))
    if stays:
        log.warning("%s holds other host names, which stay: %s", path, ", ".join(list(stays)[:10]))
    if replacements:
        old = replacements[0][0].text.decode("utf-8", "backslashreplace")[:_SHOWN] or "(none)"
        what = f"host name {old} is now {replacements[0][1].strip().decode('ascii')}"
        draft.change(path, substituted(draft.read(path) or b"", replacements), what)


def _new_name(place: _Place, renaming: Renaming) -> str | None:
    if not place.is_unset:
        return renaming.renamed(place.name)
    if place.name.startswith("localhost"):
        return renaming.new if "." in place.name else short(renaming.new)
    return renaming.new if place.path in _WITH_DOMAIN else short(renaming.new)


def _framed(data: bytes, place: _Place, new: str) -> bytes:
    """Put a name that is added to a file of lines on a line of its own."""
    text = new.encode("ascii")
    if place.path in _VARIABLES or place.name:
        return text
    return (b"" if not data.strip() or data.endswith(b"\n") else b"\n") + text + b"\n"


def _make(draft: Draft, renaming: Renaming) -> None:
    data = draft.read(RED_HAT) if draft.is_file(RED_HAT) else None
    if data is not None and not any(map(draft.exists, _SYSTEMD)):
        line_end = b"" if not data or data.endswith(b"\n") else b"\n"
        draft.change(RED_HAT, data + line_end + f"HOSTNAME={renaming.new}\n".encode("ascii"), "a host name, for none")
        return
    draft.change(DEBIAN, f"{short(renaming.new)}\n".encode("ascii"), "made, with the new host name: there was none")


def _places(draft: Draft) -> Iterator[_Place]:
    for path in PATHS:
        if path == RED_HAT and not draft.is_file(path):
            continue
        data = draft.read(path)
        if data is None:
            continue
        if path in _VARIABLES:
            yield from (_Place(path, value.span) for value in shell_values(data, _VARIABLES[path]))
            continue
        yield _Place(path, _name_line(data))


def _name_line(data: bytes) -> Span:
    """Return where the name is, or is to be."""
    line = _NAME_LINE.search(data)
    if line is not None:
        text = line.group(1).rstrip()
        return Span(line.start(1), line.start(1) + len(text), text)
    return Span(len(data) if data.strip() else 0, len(data), b"")
