# SPDX-License-Identifier: MIT
"""A login on the serial line for systems that do not start one by themselves: inittab(5) and upstart.

systemd starts one on every console in the kernel's arguments, and so does Red Hat 6's upstart.
"""

from __future__ import annotations

import logging
import re

from pydiskimg.system.boot.kernel_arguments import CONSOLE
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.systemd import PROGRAMS
from pydiskimg.system.edits.text import with_lines

log = logging.getLogger(__name__)

_INITTAB = "/etc/inittab"
_UPSTART = "/etc/init"
_UPSTART_JOB = f"{_UPSTART}/{CONSOLE}.conf"
_SECURETTY = "/etc/securetty"
_INIT = "/sbin/init"
_GETTYS = ("/sbin/getty", "/sbin/agetty", "/usr/sbin/agetty", "/usr/bin/agetty", "/usr/bin/getty", "/bin/getty")
# In the identifier field busybox's init has a terminal, sysvinit at most four letters; busybox has no run levels.
_BUSYBOX = re.compile(rb"^(?:tty[A-Za-z0-9]*+)?::(?:sysinit|respawn|askfirst|wait):", re.MULTILINE)
_OWN_GETTY = re.compile(rb"^[ \t]*+[^#\n]*\b" + CONSOLE.encode() + rb"\b", re.MULTILINE)
_IDENTIFIERS = ("T0", "s0", "S0", "co", "ser0")
_WHAT = "login on the serial console"
_JOB = """\
# {console} - getty on the serial console
start on stopped rc RUNLEVEL=[2345]
stop on runlevel [!2345]
respawn
exec {getty} -L 115200 {console} vt100
"""


def configure_serial_console(draft: Draft) -> None:
    """Make the system start a login on the serial line that root may use. Existing logins are kept."""
    _trust(draft)
    if _is_systemd(draft):
        return
    getty = next((path for path in _GETTYS if draft.is_file(path)), None)
    inittab = draft.read(_INITTAB)
    jobs = draft.files(_UPSTART, "*.conf")
    if inittab is None and not jobs:
        log.info("the system has neither systemd nor an inittab or upstart; no login is started on %s", CONSOLE)
    elif getty is None:
        log.warning("the system has no getty; no login is started on %s", CONSOLE)
    elif jobs:
        _add_job(draft, jobs, getty)
    elif inittab is not None and not _OWN_GETTY.search(inittab):
        line = _inittab_line(inittab, getty)
        draft.change(_INITTAB, with_lines(inittab, line.encode("ascii")), _WHAT)


def _is_systemd(draft: Draft) -> bool:
    systemd = next((status for path in PROGRAMS if (status := draft.stat(path))), None)
    if systemd is None:
        return False
    init = draft.stat(_INIT)
    return init is None or (init.st_dev, init.st_ino) == (systemd.st_dev, systemd.st_ino)


def _trust(draft: Draft) -> None:
    """Add the line to those where root may log in, if the system has such a list."""
    old = draft.read(_SECURETTY)
    if old is not None and CONSOLE.encode() not in (line.strip() for line in old.split(b"\n")):
        draft.change(_SECURETTY, with_lines(old, CONSOLE.encode()), _WHAT)


def _add_job(draft: Draft, jobs: list[str], getty: str) -> None:
    for path in jobs:
        data = draft.read(path) or b""
        if _OWN_GETTY.search(data) or b"serial-console-available" in data:
            return
    draft.change(_UPSTART_JOB, _JOB.format(console=CONSOLE, getty=getty).encode("ascii"), _WHAT)


def _inittab_line(inittab: bytes, getty: str) -> str:
    if _BUSYBOX.search(inittab):
        return f"{CONSOLE}::respawn:{getty} -L 115200 {CONSOLE} vt100"
    taken = {line.split(b":")[0].strip().decode("ascii", "replace") for line in inittab.split(b"\n")}
    identifier = next((name for name in _IDENTIFIERS if name not in taken), _IDENTIFIERS[0])
    return f"{identifier}:2345:respawn:{getty} -L {CONSOLE} 115200 vt100"
