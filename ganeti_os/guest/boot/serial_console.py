# SPDX-License-Identifier: MIT
"""A login on the first serial port, for systems whose init does not start one where console= names it.

systemd does. sysvinit and busybox read /etc/inittab, upstart /etc/init/*.conf (before that /etc/event.d). root may log
in there where /etc/securetty lists the port, or is not there.
"""

from __future__ import annotations

import re

from ganeti_os.guest.boot.arguments import SERIAL_PORT, SERIAL_SPEED
from ganeti_os.guest.draft import Draft

_INITTAB = "/etc/inittab"
_SECURETTY = "/etc/securetty"
_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
_UPSTART = (
    ("/etc/init/tty1.conf", f"/etc/init/{SERIAL_PORT}.conf"),
    ("/etc/event.d/tty1", f"/etc/event.d/{SERIAL_PORT}"),
)
_PORT = rb"\b" + SERIAL_PORT.encode() + rb"\b"
_GETTY = re.compile(rb"^[^#\n]*?" + _PORT, re.MULTILINE)
# The line that a distribution has for it, switched off: Debian, Gentoo, Alpine.
_COMMENTED = re.compile(
    rb"^[ \t]*+#++[ \t]*+([A-Za-z0-9]{0,8}:[0-9]*+:respawn:[^\n]*?" + _PORT + rb"[^\n]*+)", re.MULTILINE
)
_SYSVINIT = re.compile(rb"^[A-Za-z0-9]{1,8}:[0-9Ss]*+:(?:initdefault|sysinit|respawn):", re.MULTILINE)
_AGETTY = ("/sbin/agetty", "/usr/sbin/agetty")
_LINE = re.compile(rb"^[ \t]*+" + SERIAL_PORT.encode() + rb"[ \t]*+\r?$", re.MULTILINE)
_EXEC = re.compile(rb"^exec[^\n]*+", re.MULTILINE)
_TTY1 = re.compile(rb"\btty1\b")


def add_serial_login(draft: Draft) -> None:
    """Let the system have a login on the serial port, where its init needs to be told; again changes nothing."""
    if any(map(draft.exists, _SYSTEMD)):
        return
    for model, path in _UPSTART:
        if draft.is_file(model):
            _add_upstart_job(draft, model, path)
            break
    else:
        if draft.is_file(_INITTAB):
            _add_to_inittab(draft)
    if draft.is_file(_SECURETTY):
        data = draft.read(_SECURETTY) or b""
        if not _LINE.search(data):
            draft.change(_SECURETTY, data + _line_end(data) + SERIAL_PORT.encode() + b"\n", "root may log in there")


def _add_upstart_job(draft: Draft, model: str, path: str) -> None:
    if draft.exists(path):
        return
    job = _TTY1.sub(SERIAL_PORT.encode(), draft.read(model) or b"")
    command = f"exec /sbin/getty -L {SERIAL_SPEED} {SERIAL_PORT} vt102".encode()
    draft.change(path, _EXEC.sub(command, job), "a login on the serial port")


def _add_to_inittab(draft: Draft) -> None:
    data = draft.read(_INITTAB) or b""
    if _GETTY.search(data):
        return
    commented = _COMMENTED.search(data)
    if commented is not None:
        changed = data[: commented.start()] + commented.group(1) + data[commented.end() :]
    else:
        changed = data + _line_end(data) + _new_line(draft, data) + b"\n"
    draft.change(_INITTAB, changed, "a login on the serial port")


def _new_line(draft: Draft, data: bytes) -> bytes:
    """Return a line of inittab: busybox has the terminal in its first field, where sysvinit has a name."""
    agetty = next((path for path in _AGETTY if draft.exists(path)), None)
    command = f"/sbin/getty -L {SERIAL_PORT} {SERIAL_SPEED} vt100"
    if agetty is not None:
        command = f"{agetty} -L {SERIAL_SPEED} {SERIAL_PORT} vt100"
    start = "T0:2345:respawn:" if _SYSVINIT.search(data) else f"{SERIAL_PORT}::respawn:"
    return f"{start}{command}".encode("ascii")


def _line_end(data: bytes) -> bytes:
    return b"" if not data or data.endswith(b"\n") else b"\n"
