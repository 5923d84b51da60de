# SPDX-License-Identifier: MIT
"""Dropbear's host keys, in its own format: the image's keys are replaced by new ones.

A key file has the algorithm's name, the public and then the private numbers, as string and mpint of RFC 4253.
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
# Programs that start it: with -R it makes missing keys itself, and so do scripts that run dropbearkey.
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
    """Replace each existing key, or remove it if Dropbear makes it at its start; DSA keys are removed."""
    for path in (path for directory in _IN_INITRAMFS for path in draft.files(directory, _NAME.format("*"))):
        log.warning("%s is kept as in the image: the initramfs has a copy", path)
    there = draft.files(_DIRECTORY, _NAME.format("*"))
    makes = bool(there) and any(_MAKES.search(draft.read(path) or b"") for path in _STARTERS if draft.is_file(path))
    for path in there:
        draft.remove(path, "removed: a host key of the image")
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
    """Return a positive number, with a byte of zeros before a first bit that would be taken for a sign."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
