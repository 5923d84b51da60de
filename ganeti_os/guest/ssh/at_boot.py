# SPDX-License-Identifier: MIT
"""Find out whether a system makes missing ssh host keys by itself at boot (ADR 0103).

The answer is yes only if that is certain: a key that is made here keeps a system from making its own, and a missing key
keeps sshd from starting.

- Red Hat, Fedora: sshd.service wants sshd-keygen.target, and that sshd-keygen@TYPE.service; RHEL 7: sshd-keygen.service
- SUSE: sshd.service runs sshd-gen-keys-start
- Arch: sshd.service wants sshdgenkeys.service
- Gentoo with systemd: sshd.service runs ssh-keygen -A
- Alpine, Gentoo with OpenRC, RHEL 6, SLES 11, Void, Slackware: the script that starts sshd
- Debian and Ubuntu: no; the package makes them when it is installed, and cloud-init in cloud images
"""

from __future__ import annotations

import re

from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.systemd import UNIT_DIRECTORIES, has_systemd

_SERVICES = ("sshd.service", "ssh.service")
_SCRIPTS = ("/etc/init.d/sshd", "/etc/rc.d/init.d/sshd", "/etc/init.d/ssh", "/etc/sv/sshd/run", "/etc/rc.d/rc.sshd")
# Settings that disable it: in a file, a variable with a value.
_OFF = (
    ("/etc/sysconfig/sshd", "AUTOCREATE_SERVER_KEYS", (b"no",)),
    ("/etc/conf.d/sshd", "sshd_disable_keygen", (b"yes", b"true", b"1", b"on")),
)
# A unit that is wanted, and the one that makes the keys.
_MAKERS = {
    "sshd-keygen.target": "sshd-keygen@.service",
    "sshd-keygen.service": "sshd-keygen.service",
    "sshdgenkeys.service": "sshdgenkeys.service",
}
_MAKES = re.compile(rb"/sshd?-keygen\b|/sshd-gen-keys-start\b")
_IN_SCRIPT = re.compile(rb"^[^#\n]*?keygen", re.MULTILINE | re.IGNORECASE)
_DIRECTIVE = re.compile(rb"^[ \t]*+([A-Za-z]++)[ \t]*+=[ \t]*+([^\r\n]*+)", re.MULTILINE)
_CONDITION_OF_KEYS = re.compile(rb"\|?!?/etc/ssh/[^/]*")
_CLOUD_CONFIG = "/etc/cloud/cloud.cfg"
_CLOUD_MODULE = re.compile(rb"^[ \t]*+-[ \t]*+['\"]?ssh['\"]?[ \t]*+$", re.MULTILINE)
_CLOUD_NO_KINDS = re.compile(rb"^ssh_genkeytypes:[ \t]*+(?:~|null|\[[ \t]*+\])?[ \t]*+(?:#.*)?$", re.MULTILINE)


def makes_host_keys(draft: Draft) -> bool:
    """True if the system certainly makes missing host keys of OpenSSH before sshd starts.

    Raises StorageError for what cannot be read.
    """
    if any(_switched_off(draft, *off) for off in _OFF):
        return False
    if has_systemd(draft):
        return any(_service_makes(draft, name) for name in _SERVICES)
    return any(draft.is_file(path) and _IN_SCRIPT.search(draft.read(path) or b"") for path in _SCRIPTS)


def _switched_off(draft: Draft, path: str, name: str, values: tuple[bytes, ...]) -> bool:
    if not draft.is_file(path):
        return False
    found = [value.span for value in shell_values(draft.read(path) or b"", (name,))]
    return bool(found) and (found[-1] is None or found[-1].text.lower() in values)


def _service_makes(draft: Draft, name: str) -> bool:
    started: list[bytes] = []
    wanted: list[str] = []
    for keyword, value in _directives(draft, name):
        if keyword == b"ExecStartPre":
            started = [*started, value] if value else []
        elif keyword in (b"Wants", b"Requires"):
            wanted += value.decode("latin-1").split()
    if any(_MAKES.search(command) for command in started):
        return True
    return any(_unit_makes(draft, _MAKERS[unit]) for unit in wanted if unit in _MAKERS)


def _unit_makes(draft: Draft, name: str) -> bool:
    """True if there is a unit that makes missing keys at any boot."""
    makes = False
    for keyword, value in _directives(draft, name):
        if keyword == b"ExecStart":
            makes = makes or bool(_MAKES.search(value))
        elif keyword.startswith((b"Condition", b"Assert")) and not _holds(draft, value):
            return False
    return makes


def _holds(draft: Draft, condition: bytes) -> bool:
    """True if a missing key is made by the unit with this condition, or by cloud-init instead."""
    if _CONDITION_OF_KEYS.fullmatch(condition):
        return True
    return b"cloud-init" in condition and _cloud_init_makes(draft)


def _cloud_init_makes(draft: Draft) -> bool:
    """True if cloud-init makes keys and keeps sshd-keygen from doing so, as in Fedora and RHEL."""
    data = draft.read(_CLOUD_CONFIG) if draft.is_file(_CLOUD_CONFIG) else None
    return data is not None and bool(_CLOUD_MODULE.search(data)) and not _CLOUD_NO_KINDS.search(data)


def _directives(draft: Draft, unit: str) -> list[tuple[bytes, bytes]]:
    """Return the lines of a unit and its drop-ins; empty if there is no such unit, or it is masked."""
    path = next((f"{directory}/{unit}" for directory in UNIT_DIRECTORIES if _there(draft, f"{directory}/{unit}")), None)
    if path is None or not draft.is_file(path):
        return []
    texts = [draft.read(path) or b""]
    if not texts[0].strip():
        return []
    names = {}
    for directory in reversed(UNIT_DIRECTORIES):
        for drop_in in draft.files(f"{directory}/{unit}.d", "*.conf"):
            names[drop_in.rpartition("/")[2]] = drop_in
    texts += [draft.read(names[name]) or b"" for name in sorted(names)]
    return [(found[1], found[2].strip()) for text in texts for found in _DIRECTIVE.finditer(text)]


def _there(draft: Draft, path: str) -> bool:
    return draft.stat(path, follow_symlinks=False) is not None
