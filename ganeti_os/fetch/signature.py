# SPDX-License-Identifier: MIT
"""Verify the OpenPGP signature of a checksum file or an image with the keys of IMAGE_KEYRING, by Sequoia (ADR 0110).

A signature is detached, binary or in armor (SHA256SUMS.gpg), or around the text itself (clear-signed, RFC 9580,
section 7). One good signature by any key of the keyring is enough, even if others are bad.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, Packet, PacketPile, Tag

from ganeti_os.fetch.cache import open_regular
from pydiskimg.errors import storage_error
from pydiskimg.units import MIB, format_size
from pydiskimg.web.errors import FetchError

log = logging.getLogger(__name__)

# In the order of requests, after the name of the checksum file.
ENDINGS = (".gpg", ".asc", ".sign", ".sig")
_KEYRING_LIMIT = 16 * MIB
_SIGNATURES = 16  # of one file that are tried

_CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_KEYBOX = slice(8, 12), b"KBXf"
_WEAK = (HashAlgorithm.MD5, HashAlgorithm.RipeMD, HashAlgorithm.SHA1)


class NotSignedError(FetchError):
    """A signature cannot be believed; the text, a clause, follows the name of its file."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The signed data, and the fingerprint of the certificate whose key signed it, in lower case."""

    data: bytes
    fingerprint: str


class Keyring:
    """The certificates of a file; made by read_keyring()."""

    def __init__(self, path: str, certificates: list[Cert]) -> None:
        self.path = path
        self._certificates = certificates
        self._by_key = {key: cert for cert in certificates for key in _keys(cert)}

    def has(self, fingerprint: str) -> bool:
        """True if the certificate of this fingerprint is in the keyring."""
        return any(cert.fingerprint == fingerprint for cert in self._certificates)

    def verified(self, data: bytes, signature: bytes | None = None) -> Signed:
        """Return the data with a good signature: data, or without signature the clear-signed part of it.

        Raises NotSignedError.
        """
        if signature is not None and not is_clear_signed(signature):
            return self._detached(data, signature)
        text = data if signature is None else signature
        try:
            return self._checked(text, None)
        except _BadSignatureError as error:
            start = text.find(_SIGNATURE)
            raise self._reason(_packets(text[start:]) if start >= 0 else [], error) from None

    def signer(self, fd: int, signature: bytes) -> str:
        """Return the fingerprint of the signer of the file open at fd. Raises NotSignedError."""
        return self._detached(f"/proc/self/fd/{fd}", signature).fingerprint

    def _detached(self, data: bytes | str, signature: bytes) -> Signed:
        """Verify a signature over bytes, or over the file at a path, whose bytes are not returned."""
        packets = _packets(signature)
        problem = _BadSignatureError("does not contain an OpenPGP signature")
        for packet in packets:
            try:
                return self._checked(data, packet)
            except _BadSignatureError as error:
                problem = error
        raise self._reason(packets, problem)

    def _checked(self, data: bytes | str, packet: Packet | None) -> Signed:
        try:
            signature = None if packet is None else Sig.from_bytes(bytes(packet))
            if isinstance(data, str):
                found = verify(file=data, store=self._wanted, signature=signature)
            else:
                found = verify(bytes=data, store=self._wanted, signature=signature)
            return Signed(found.bytes or b"", found.valid_sigs[0].certificate)
        except BaseException as error:  # noqa: BLE001 - a panic of the library is none of Exception; see _refused()
            raise _refused(error) from None

    def _wanted(self, keys: list[str]) -> list[Cert]:
        found = [self._by_key[key.lower()] for key in keys if key.lower() in self._by_key]
        return found if keys else self._certificates

    def _reason(self, packets: list[Packet], error: Exception) -> NotSignedError:
        """Return why none of the signatures counts, from the last one with the most detailed reason."""
        if not packets:
            return NotSignedError("does not contain an OpenPGP signature")
        known = [(packet, self._by_key[key]) for packet in packets for key in _issuers(packet) if key in self._by_key]
        if not known:
            keys = ", ".join(dict.fromkeys(next(_issuers(packet), "a key that it does not name") for packet in packets))
            return NotSignedError(f"is signed by {keys}, which is not in {self.path}")
        packet, certificate = known[-1]
        who = f"is signed by {certificate.fingerprint} of {self.path}"
        if certificate.is_revoked:
            return NotSignedError(f"{who}, a key that is revoked")
        if packet.hash_algorithm in _WEAK:
            weak = str(packet.hash_algorithm).rpartition(".")[2]
            return NotSignedError(f"{who} with {weak}, which can be forged; expected SHA-256 or better")
        expired = certificate.expiration
        if expired is not None and packet.signature_created is not None and packet.signature_created > expired:
            return NotSignedError(f"{who}, a key that had expired ({expired:%Y-%m-%d}) when it was signed")
        return NotSignedError(f"{who}, but the signature is not good ({error})")


class _BadSignatureError(Exception):
    """Sequoia's error text, in one line."""


def is_clear_signed(data: bytes) -> bool:
    """True if the data are a text with its signature around it."""
    return data.startswith(_CLEAR_SIGNED) or b"\n" + _CLEAR_SIGNED in data


def holds_signature(data: bytes) -> bool:
    """True if the data are a detached signature, in armor or binary."""
    return not is_clear_signed(data) and bool(_packets(data))


def read_keyring(path: str) -> Keyring:
    """Return the keyring in a file, binary or in armor, as gpg --export writes it.

    Raises StorageError when it cannot be read, FetchError if it has no keys.
    """
    try:
        with open(open_regular(path, os.O_RDONLY, follow=True), "rb") as file:
            data = file.read(_KEYRING_LIMIT + 1)
    except OSError as error:
        raise storage_error(error, path, "cannot read the keyring (IMAGE_KEYRING)") from error
    if len(data) > _KEYRING_LIMIT:
        raise FetchError(f"{path}: IMAGE_KEYRING is larger than {format_size(_KEYRING_LIMIT)}; expected OpenPGP keys")
    at, magic = _KEYBOX
    if data[at] == magic:
        raise FetchError(
            f"{path}: IMAGE_KEYRING is a keybox of GnuPG; expected exported keys: "
            "gpg --no-default-keyring --keyring KEYBOX --export >NEW"
        )
    try:
        certificates = list(Cert.split_bytes(data))
    except BaseException as error:  # noqa: BLE001 - as in _checked()
        raise FetchError(f"{path}: IMAGE_KEYRING does not contain OpenPGP keys ({_refused(error)})") from None
    if not certificates:
        raise FetchError(f"{path}: IMAGE_KEYRING does not contain OpenPGP keys; expected the output of gpg --export")
    return Keyring(path, certificates)


def _keys(certificate: Cert) -> Iterator[str]:
    """Yield fingerprint and key id of each key of a certificate, in lower case."""
    for packet in PacketPile.from_bytes(bytes(certificate)):
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            yield from (name.lower() for name in (packet.fingerprint, packet.key_id) if name)


def _issuers(packet: Packet) -> Iterator[str]:
    yield from (name.lower() for name in (packet.issuer_fingerprint, packet.issuer_key_id) if name)


def _packets(signature: bytes) -> list[Packet]:
    """Return the signatures in a file of them."""
    try:
        found = [packet for packet in PacketPile.from_bytes(signature) if packet.tag == Tag.Signature]
    except BaseException as error:  # noqa: BLE001 - as in _checked()
        log.debug("%s", _refused(error))
        return []
    return found[:_SIGNATURES]


def _refused(error: BaseException) -> _BadSignatureError:
    """Return the library's error text without its trace; raise other exceptions again."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    lines = str(error).strip().splitlines()
    return _BadSignatureError(lines[0].strip().rstrip(".") if lines else type(error).__name__)
