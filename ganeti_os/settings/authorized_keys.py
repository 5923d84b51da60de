# SPDX-License-Identifier: MIT
"""The authorised keys in the settings: lines as in sshd(8), checked before the first write."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from itertools import pairwise

from ganeti_os.settings.root_owned import distrust
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import storage_error
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from ganeti_os.settings.settings import Settings

LIMIT = 64 << 10  # bytes of all keys of one setting

_KINDS = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


def keys_of_settings(settings: Settings) -> tuple[str, ...]:
    """Return the lines of AUTHORIZED_KEYS and of the file AUTHORIZED_KEYS_FILE, without comments.

    Raises SettingsError for a file that others than root can write, or with other contents; StorageError for one that
    cannot be read.
    """
    keys = parse_keys(settings.authorized_keys)
    if settings.authorized_keys_file:
        try:
            keys += parse_keys(_contents(settings.authorized_keys_file))
        except ValueError as error:
            raise SettingsError(f"{settings.authorized_keys_file}: {error}") from None
    return tuple(dict.fromkeys(keys))


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the lines with keys in them. Raises ValueError, which names the line."""
    keys = []
    for number, found in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = found.strip()
        if line and not line.startswith("#"):
            if not _is_key(line):
                raise ValueError(f"line {number} is not a key; expected [options] type base64 [comment]")
            keys.append(line)
    return tuple(keys)


def _is_key(line: str) -> bool:
    """True if a line has a type, followed by a key of this type."""
    if not line.isprintable():
        return False
    words = line.split()
    for kind, text in pairwise(words):
        if not kind.startswith(_KINDS):
            continue
        try:
            blob = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if blob[:4] == len(kind).to_bytes(4, "big") and blob[4 : 4 + len(kind)] == kind.encode():
            return True
    return False


def _contents(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO must not block
    except OSError as error:
        raise storage_error(error, path, "cannot read the authorised keys") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"{path}: is not a regular file; expected authorised keys")
        problem = distrust(path, status, "opens instances")
        if problem:
            raise SettingsError(problem)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    finally:
        os.close(fd)
    if len(data) > LIMIT:
        raise SettingsError(f"{path}: is larger than {LIMIT} bytes; expected authorised keys")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is not UTF-8; expected authorised keys") from None
