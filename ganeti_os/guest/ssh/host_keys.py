# SPDX-License-Identifier: MIT
"""The host keys of a new instance: the image's are removed, and the instance gets its own (ADR 0103)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from ganeti_os.guest.ssh import dropbear
from ganeti_os.guest.ssh.at_boot import makes_host_keys
from ganeti_os.guest.ssh.config import config_lines
from ganeti_os.guest.ssh.key_pairs import ECDSA, ED25519, KINDS, RSA, KeyMaker
from pydiskimg.system.edits.draft import Draft, GuestError

log = logging.getLogger(__name__)

_SERVERS = ("/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd")
_DIRECTORIES = ("/etc/ssh", "/etc/openssh")
_KEYS_LIMIT = 16
_IMAGES_KEY = "removed: a host key of the image"
# What the public file of a key begins with.
_ALGORITHMS = {b"ssh-rsa": RSA, b"ssh-ed25519": ED25519, b"ecdsa-sha2-nistp": ECDSA}


@dataclass(frozen=True, slots=True)
class _Key:
    path: str
    kind: str | None  # None: DSA, and unknown kinds


def make_host_keys(draft: Draft, comment: str, maker: KeyMaker) -> None:
    """Remove the image's host keys, and make those that the guest's ssh servers need and its boot does not make.

    comment is for the public files. Raises StorageError for unreadable files, GuestError for too many keys.
    """
    wanted = list(_configured(draft))
    found = [_Key(path, _kind(draft, path)) for path in _found(draft)]
    if any(map(draft.exists, _SERVERS)):
        _renew_keys(draft, wanted, found, comment, maker)
    else:
        _remove(draft, found)
    dropbear.make_host_keys(draft, maker)


def _renew_keys(draft: Draft, configured: list[_Key], found: list[_Key], comment: str, maker: KeyMaker) -> None:
    standard = {f"{_directory(draft)}/ssh_host_{kind}_key": kind for kind in KINDS}
    if makes_host_keys(draft) and all(key.path in standard for key in configured):
        _remove(draft, found)
        return
    wanted = configured or [key for key in found if key.path in standard]
    wanted = wanted or [_Key(path, kind) for path, kind in standard.items()]
    pem = {key.path: _is_pem(draft, key.path) for key in wanted}
    _remove(draft, [*found, *wanted])
    for key in wanted:
        if key.kind is None:
            log.warning("%s is not replaced: keys of its kind are not made", key.path)
            continue
        pair = maker.pair(key.kind, comment=comment, pem=pem[key.path])
        draft.change(key.path, pair.private, f"the instance's own {key.kind} host key", mode=0o600)
        draft.change(f"{key.path}.pub", pair.public, "its public half")


def _remove(draft: Draft, keys: list[_Key]) -> None:
    for key in keys:
        draft.remove(key.path, _IMAGES_KEY)
        draft.remove(f"{key.path}.pub", _IMAGES_KEY)


def _directory(draft: Draft) -> str:
    return next((directory for directory in _DIRECTORIES if draft.exists(directory)), _DIRECTORIES[0])


def _configured(draft: Draft) -> Iterator[_Key]:
    """Yield the keys in sshd_config; warn of certificates, which are valid for the image's keys only."""
    paths: dict[str, None] = {}
    for line in config_lines(draft):
        if line.keyword == "hostkey" and line.words and line.words[0].startswith("/"):
            paths[line.words[0]] = None
        elif line.keyword == "hostcertificate":
            log.warning("%s names a host certificate, which is not valid for the instance's own key", line.location)
    if len(paths) > _KEYS_LIMIT:
        raise GuestError(
            f"sshd_config names {len(paths)} host keys; expected at most {_KEYS_LIMIT}; nothing was changed"
        )
    for path in paths:
        yield _Key(path, _kind(draft, path))


def _found(draft: Draft) -> list[str]:
    """Return the existing host keys, with and without a public file."""
    found: dict[str, None] = {}
    for directory in _DIRECTORIES:
        for path in draft.files(directory, "ssh_host_*key*"):
            name = path.removesuffix(".pub")
            if name.endswith("key"):
                found[name] = None
    return list(found)


def _kind(draft: Draft, path: str) -> str | None:
    """Return the kind of a key by its public file, or else by its name."""
    public = f"{path}.pub"
    if draft.is_file(public):
        beginning = (draft.read(public) or b"")[:40]
        for algorithm, kind in _ALGORITHMS.items():
            if beginning.startswith(algorithm):
                return kind
        if beginning.startswith((b"ssh-dss ", b"ssh-xmss")):
            return None
    name = path.rpartition("/")[2]
    return next((kind for kind in (ED25519, ECDSA, RSA) if kind in name), None)


def _is_pem(draft: Draft, path: str) -> bool:
    """True if a key is in the format of OpenSSH before 7.8; its sshd may be too old for the new format."""
    if not draft.is_file(path):
        return False
    return (draft.read(path) or b"").startswith((b"-----BEGIN RSA PRIVATE", b"-----BEGIN EC PRIVATE"))
