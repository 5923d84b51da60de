# SPDX-License-Identifier: MIT
"""Dropbear's host keys, in its own format: those that the image has are made anew.

Of what RFC 4253 calls a string and an mpint: the algorithm's name, the public and then the private numbers.
"""

from __future__ import annotations

import logging
import re
import struct

from ganeti_os.guest.ssh.key_pairs import ECDSA, ED25519, KINDS, RSA, KeyMaker
from pydiskimg.system.edits.draft import Draft

log = logging.getLogger(__name__)

_DIRECTORY = "/etc/dropbear"
_IN_INITRAMFS = ("/etc/dropbear/initramfs", "/etc/dropbear-initramfs")
# What starts it: with -R it makes missing keys itself, and scripts that run dropbearkey do, too.
_STARTERS = (
    "/etc/init.d/dropbear",
    "/etc/conf.d/dropbear",
    "/etc/default/dropbear",
    "/etc/systemd/system/dropbear.service",
    "/usr/lib/systemd/system/dropbear.service",
    "/lib/systemd/system/dropbear.service",
    "/usr/lib/systemd/system/dropbear@.service",
)
_MAKES = re.compile(rb"^[^#\n]*?(?:dropbearkey|(?<=[\s\"'=])-[A-Za-z]{0,8}R)", re.MULTILINE)
_NAME = "dropbear_{}_host_key"


def make_host_keys(draft: Draft, maker: KeyMaker) -> None:
    """Make each key that is there anew, or take it away where Dropbear makes it at its start; a DSA key goes."""
    for path in (path for directory in _IN_INITRAMFS for path in draft.files(directory, _NAME.format("*"))):
        log.warning("%s stays as the image has it: the initramfs holds a copy", path)
    there = draft.files(_DIRECTORY, _NAME.format("*"))
    makes = bool(there) and any(_MAKES.search(draft.read(path) or b"") for path in _STARTERS if draft.is_file(path))
    for path in there:
        draft.remove(path, "removed: a host key of the image's")
        kind = next((kind for kind in KINDS if path == f"{_DIRECTORY}/{_NAME.format(kind)}"), None)
        if kind is not None and not makes:
            draft.change(path, private_key(kind, maker), f"the instance's own {kind} host key", mode=0o600)


def private_key(kind: str, maker: KeyMaker) -> bytes:
    """Return a new key as dropbearkey(1) writes it."""
    if kind == RSA:
        numbers = maker.rsa().private_numbers()
        public = numbers.public_numbers
        return _string(b"ssh-rsa") + b"".join(map(_mpint, (public.e, public.n, numbers.d, numbers.p, numbers.q)))
    if kind == ECDSA:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = maker.ecdsa()
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        names = _string(b"ecdsa-sha2-nistp256") + _string(b"nistp256")
        return names + _string(point) + _mpint(key.private_numbers().private_value)
    assert kind == ED25519
    return _ed25519(maker)


def _ed25519(maker: KeyMaker) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    key = maker.ed25519()
    private = key.private_bytes(form.Encoding.Raw, form.PrivateFormat.Raw, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
    return _string(b"ssh-ed25519") + _string(private + public)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _mpint(number: int) -> bytes:
    """Return a positive number, with a byte of zeros before a first bit that would be a sign."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
