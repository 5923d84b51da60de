# SPDX-License-Identifier: MIT
"""The expected checksum of a file, from a checksum file on the server, and the actual hash of its bytes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ganeti_os.fetch.checksums import Checksum, NotUnderstoodError, find_checksum
from ganeti_os.fetch.site import Site
from pydiskimg.errors import storage_error
from pydiskimg.protocols import Progress
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB, format_size
from pydiskimg.web.client import Answer
from pydiskimg.web.errors import FetchError, NotThereError, UnreachableError
from pydiskimg.web.retries import ATTEMPTS, retried

if TYPE_CHECKING:  # the library is installed only if IMAGE_KEYRING is set
    from ganeti_os.fetch.signature import Keyring, Signed

log = logging.getLogger(__name__)

CHECKSUM_FILE_LIMIT = MIB
_SIG = ".sig"  # with a SHA-1, as ganeti-instance-image accepts
# Fedora's file is named after the release: Fedora-Cloud-Base-Generic-42-1.1.x86_64.qcow2 (up to 40 with the
# architecture first) belongs to Fedora-Cloud-42-1.1-x86_64-CHECKSUM.
_FEDORA = (
    re.compile(r"Fedora-(?P<what>\w++)-Base[\w-]*?-(?P<release>\d++-[\d.]*\d)\.(?P<arch>[a-z]\w*+)\..*"),
    re.compile(r"Fedora-(?P<what>\w++)-Base[\w-]*?\.(?P<arch>\w++)-(?P<release>\d++-[\d.]*\d)\..*"),
)


@dataclass(frozen=True, slots=True)
class Expected:
    """The checksum of a file; source is the checksum file with it, signer who signed that ("": not verified).

    If no checksum file is signed but the file itself is, signature is yet to be verified over its bytes; it is from the
    file called signature_source.
    """

    checksum: Checksum
    source: str
    signer: str = ""
    signature: bytes = b""
    signature_source: str = ""


def fetch_checksum(
    site: Site,
    name: str,
    check: Callable[[], None],
    *,
    attempts: int = ATTEMPTS,
    keyring: Keyring | None = None,
) -> Expected:
    """Return the checksum of the file name on the site, from a checksum file that a key of the keyring signed.

    Without a keyring any checksum file is believed. Raises FetchError if none has a checksum or a signature is wrong,
    NotThereError if the image does not exist either, UnreachableError if the site does not answer.
    """
    there: list[str] = []
    unsigned: Expected | None = None
    for source, alone in _sources(name):
        try:
            data = small_file(site, source, check, attempts)
            found = _found(site, source, data, name, alone=alone)
            signer = ""
            if found is not None and keyring is not None:
                signed = _signed(site, source, data, keyring, check, attempts)
                found, signer = _found(site, source, signed.data, name, alone=alone), signed.fingerprint
        except NotThereError as error:
            log.debug("%s", error)
            continue
        except NotUnderstoodError as error:
            there.append(f"{source} {error}")
            continue
        except _UnsignedError as error:
            there.append(str(error))
            unsigned = unsigned or (Expected(found, source) if found is not None else None)
            continue
        if found is not None:
            log.debug("%s: %s for %s", site.url(source), found, name)
            return Expected(found, source, signer)
        there.append(f"{source} does not list it")
    if unsigned is not None and (signed_itself := _with_signature(site, name, unsigned, check, attempts)) is not None:
        return signed_itself
    _check_there(site, name)
    raise FetchError(_no_checksum(site, name, there, keyring))


def _found(site: Site, source: str, data: bytes, name: str, *, alone: bool) -> Checksum | None:
    """Return the checksum of the file in a checksum file's data; raises NotUnderstoodError as find_checksum() does."""
    try:
        return find_checksum(data, name, alone=alone, sha1=source.endswith(_SIG))
    except NotUnderstoodError:
        raise
    except ValueError as error:
        raise FetchError(f"{site.url(source)}: {error}; expected one") from None


class _UnsignedError(Exception):
    """A checksum file has no signature; the text is a clause that begins with its name."""


def _signed(site: Site, source: str, data: bytes, keyring: Keyring, check: Callable[[], None], attempts: int) -> Signed:
    """Return the signed part of the checksum file. Raises FetchError for a wrong signature, _UnsignedError for none."""
    from ganeti_os.fetch.signature import ENDINGS, NotSignedError, is_clear_signed

    if is_clear_signed(data):
        try:
            return keyring.verified(data)
        except NotSignedError as error:
            raise FetchError(f"{site.url(source)}: {error}; the image was not used") from None
    for name, signature in _signatures(site, source, check, attempts):
        try:
            return keyring.verified(data, signature)
        except NotSignedError as error:
            raise FetchError(f"{site.url(name)}: {error}; the image was not used") from None
    raise _UnsignedError(f"{source} is not signed (the server has none of {', '.join(map(source.__add__, ENDINGS))})")


def _with_signature(
    site: Site, name: str, unsigned: Expected, check: Callable[[], None], attempts: int
) -> Expected | None:
    """Return the expectation for a file that is itself signed, as Arch's and Alpine's are; None if it is not."""
    from ganeti_os.fetch.signature import holds_signature

    for source, signature in _signatures(site, name, check, attempts):
        if holds_signature(signature):
            return replace(unsigned, signature=signature, signature_source=source)
    return None


def _signatures(site: Site, name: str, check: Callable[[], None], attempts: int) -> Iterator[tuple[str, bytes]]:
    """Yield the possible detached signatures of a file on the server, each with its name."""
    from ganeti_os.fetch.signature import ENDINGS

    for ending in ENDINGS:
        try:
            yield name + ending, small_file(site, name + ending, check, attempts)
        except NotThereError as error:
            log.debug("%s", error)


def _sources(name: str) -> list[tuple[str, bool]]:
    """Return the names of checksum files, and whether each is about this one file, in the order of requests."""
    directory = [(source, False) for source in ("SHA256SUMS", "SHA512SUMS", "CHECKSUM")]
    own = [(f"{name}{suffix}", True) for suffix in (".sha256", ".sha512", ".CHECKSUM", _SIG)]
    rare = [(source, False) for source in (*_fedora(name), "CHECKSUM.SHA256", "sha256sums")]
    rare[0:0] = [(f"{name}{suffix}", True) for suffix in (".SHA256", ".SHA256SUM")]
    return [directory[0], own[0], *directory[1:], *own[1:], *rare]


def _fedora(name: str) -> list[str]:
    found = next((match for pattern in _FEDORA if (match := pattern.fullmatch(name))), None)
    return [f"Fedora-{found['what']}-{found['release']}-{found['arch']}-CHECKSUM"] if found else []


def _no_checksum(site: Site, name: str, there: list[str], keyring: Keyring | None) -> str:
    what = "no checksum" if keyring is None else "no signed checksum"
    advice = "set IMAGE_VERIFY=no to use the image unchecked"
    if keyring is not None:
        advice = f"remove IMAGE_KEYRING ({keyring.path}) to use the image without a signature"
    if there:
        return (
            f"{site.url(name)}: {what} was found for it: {'; '.join(there)}; expected "
            f"'DIGEST  FILE' or 'SHA256 (FILE) = DIGEST', with SHA-256 or SHA-512; or {advice}"
        )
    sources = ", ".join(source for source, _ in _sources(name))
    return f"{site.url(name)}: {what} was found for it; the server has none of {sources}; put one there, or {advice}"


def _check_there(site: Site, name: str) -> None:
    """Raise NotThereError for a file that the site does not have: then the cause is a misspelt name, not a checksum."""
    with suppress(UnreachableError), site.open(name, {"Range": "bytes=0-0"}):
        pass


def small_file(site: Site, name: str, check: Callable[[], None], attempts: int) -> bytes:
    """Return a file of the site of at most CHECKSUM_FILE_LIMIT. Raises as fetch_checksum()."""
    found = [b""]

    def attempt() -> None:
        with site.open(name) as answer:
            found[0] = _body(answer, check)

    retried(attempt, check, attempts=attempts)
    return found[0]


def _body(answer: Answer, check: Callable[[], None]) -> bytes:
    data = bytearray()
    while chunk := answer.read(CHECKSUM_FILE_LIMIT + 1 - len(data)):
        check()
        data += chunk
        if len(data) > CHECKSUM_FILE_LIMIT:
            limit = format_size(CHECKSUM_FILE_LIMIT)
            raise FetchError(f"{answer.url}: is larger than {limit}; expected a file of checksums")
        if len(data) == answer.length:  # some servers keep the connection open
            break
    if answer.length is not None and len(data) < answer.length:
        raise UnreachableError(f"{answer.url}: the connection ended after {len(data)} of {answer.length} bytes")
    return bytes(data)


def digest(fd: int, algorithm: str, *, name: str, progress: Progress) -> Checksum:
    """Return the checksum of the file open at fd. Raises StorageError; name is for its text."""
    made = hashlib.new(algorithm, usedforsecurity=algorithm != "sha1")
    size, position = os.fstat(fd).st_size, 0
    buffer = bytearray(MIB)
    try:
        while count := os.preadv(fd, [buffer], position):
            made.update(memoryview(buffer)[:count])
            position += count
            progress(position, max(position, size))
    except OSError as error:
        raise storage_error(error, name, f"cannot read at offset {position}") from error
    return Checksum(algorithm, made.hexdigest())
