# SPDX-License-Identifier: MIT
"""root's account: its home directory, and its password's hash in /etc/shadow (in /etc/passwd if that is missing)."""

from __future__ import annotations

import posixpath
import re
import time
from dataclasses import dataclass

from pydiskimg.system.edits.draft import Draft, GuestError
from pydiskimg.system.edits.text import decoded, with_lines
from pydiskimg.text import printable, quoted

_PASSWD, _SHADOW = "/etc/passwd", "/etc/shadow"
_TCB = "/etc/tcb/{}/shadow"  # ALT Linux, Openwall: a file for each account
_IN_SHADOW = b"x"
_LINE = re.compile(rb"^([^:\r\n]++):([^:\r\n]*+):([^:\r\n]*+)(?::[^:\r\n]*+){2}:([^:\r\n]*+)", re.MULTILINE)
_DAY_SECONDS = 86400
_WHAT = "root's password"


@dataclass(frozen=True, slots=True)
class Root:
    """The account with user id 0; start and end are those of its password's field in /etc/passwd."""

    name: bytes
    home: str
    password: bytes
    start: int
    end: int


def root_account(draft: Draft) -> Root:
    """Return the account root, or else the first one with user id 0. Raises GuestError, StorageError."""
    data = draft.read(_PASSWD)
    if data is None:
        raise GuestError(f"{_PASSWD}: is missing in the guest; expected one with an account root")
    lines = [line for line in _LINE.finditer(data) if line[3].strip() == b"0"]
    lines.sort(key=lambda line: line[1] != b"root")
    if not lines:
        raise GuestError(f"{_PASSWD}: no account has user id 0; nothing was changed")
    home = decoded(lines[0][4])
    if not home.startswith("/") or "\0" in home:
        raise GuestError(
            f"{_PASSWD}: the home of {printable(lines[0][1], limit=40)} is {quoted(home)}; expected an absolute path"
        )
    found = lines[0]
    return Root(found[1], posixpath.normpath(home), found[2], found.start(2), found.end(2))


def set_password(draft: Draft, hashed: str) -> None:
    """Give root the password of this crypt(5) hash, changed today. Raises GuestError, StorageError."""
    root = root_account(draft)
    secret = hashed.encode("ascii")
    data = draft.read(_PASSWD) or b""
    shadow = next((path for path in (_TCB.format(root.name.decode("latin-1")), _SHADOW) if draft.is_file(path)), None)
    if shadow is None and draft.exists(_SHADOW):
        draft.read(_SHADOW)  # not a regular file: this raises the appropriate error
    field = secret if shadow is None else _IN_SHADOW
    if root.password != field:
        draft.change(_PASSWD, data[: root.start] + field + data[root.end :], _WHAT)
    if shadow is not None:
        draft.change(shadow, with_password(draft.read(shadow) or b"", root.name, secret), _WHAT)


def with_password(data: bytes, name: bytes, secret: bytes) -> bytes:
    """Return the contents of a shadow file with the new hash and today as its day; other fields stay."""
    today = str(int(time.time()) // _DAY_SECONDS).encode("ascii")
    found = re.search(rb"^%b:[^:\r\n]*+(?::[^:\r\n]*+)?" % re.escape(name), data, re.MULTILINE)
    if found is not None:
        return data[: found.start()] + b":".join((name, secret, today)) + data[found.end() :]
    return with_lines(data, b":".join((name, secret, today, b"0:99999:7:::")))
