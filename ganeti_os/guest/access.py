# SPDX-License-Identifier: MIT
"""The owner's access to a new instance: root's password and authorised keys, if the settings give any."""

from __future__ import annotations

import logging
import posixpath
import re
import stat

from ganeti_os.guest.accounts import root_account, set_password
from ganeti_os.guest.ssh.config import config_lines
from ganeti_os.settings.authorized_keys import keys_of_settings
from ganeti_os.settings.settings import Settings
from pydiskimg.system.edits.draft import Draft, GuestError
from pydiskimg.system.edits.text import decoded, encoded, with_lines
from pydiskimg.text import quoted

log = logging.getLogger(__name__)

_DEFAULT = ".ssh/authorized_keys"


def give_access(draft: Draft, settings: Settings) -> None:
    """Give root the password and the authorised keys of the settings; without them the image's stay.

    Neither a password nor its hash appears in a message or a log. Raises SettingsError for invalid keys, GuestError and
    StorageError for a guest whose files cannot take them.
    """
    keys = keys_of_settings(settings)
    if settings.root_password_hash:
        set_password(draft, settings.root_password_hash)
    if keys:
        _authorise(draft, keys)


def _authorise(draft: Draft, keys: tuple[str, ...]) -> None:
    path = _keys_file(draft)
    directory = path.rpartition("/")[0]
    _tell_of_others(draft, directory)
    _tell_of_others(draft, path)
    old = draft.read(path) or b""
    known = {_key_itself(line) for line in decoded(old).splitlines()}
    added = [key for key in keys if _key_itself(key) not in known]
    if not added:
        return
    draft.make_directory(directory, "made for authorised keys", mode=0o700)
    draft.change(path, with_lines(old, *map(encoded, added)), f"root's authorised keys: {len(added)}", mode=0o600)


def _keys_file(draft: Draft) -> str:
    """Return the first file that sshd reads root's keys from."""
    root = root_account(draft)
    words = next((line.words for line in config_lines(draft) if line.keyword == "authorizedkeysfile"), (_DEFAULT,))
    usual = posixpath.join(root.home, _DEFAULT)
    name = words[0] if words else _DEFAULT
    if name.lower() == "none":
        log.warning("sshd_config has AuthorizedKeysFile none: sshd does not read %s", usual)
        return usual
    means = {"%%": "%", "%h": root.home, "%u": decoded(root.name), "%U": "0"}
    name = re.sub("%.", lambda found: means.get(found[0], found[0]), name)
    path = posixpath.normpath(posixpath.join(root.home, name))
    if path == "/" or not path.startswith("/"):
        raise GuestError(f"sshd_config: AuthorizedKeysFile is {quoted(words[0])}; expected a file's path")
    return path


def _tell_of_others(draft: Draft, path: str) -> None:
    """Warn of a file that sshd refuses to read because others may write it; its mode is not changed."""
    status = draft.stat(path)
    if status is not None and (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid != 0):
        log.warning(
            "%s: others than root can write to it, so sshd may refuse root's authorised keys; change its mode inside "
            "the guest",
            path,
        )


def _key_itself(line: str) -> str:
    """Return the base64 of the key in a line of authorized_keys, without its options and comment."""
    return next((word for word in line.split() if word.startswith("AAAA")), line.strip())
