# SPDX-License-Identifier: MIT
"""What a file must be: its checksum, from one of the files beside it; and what it is: the hash of its bytes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress

from ganeti_os.fetch.checksums import Checksum, NotUnderstoodError, find_checksum
from ganeti_os.fetch.download import ATTEMPTS, retried
from ganeti_os.fetch.errors import FetchError, NotThereError, UnreachableError
from ganeti_os.fetch.site import Answer, Site
from pydiskimg.errors import storage_error
from pydiskimg.protocols import Progress
from pydiskimg.units import MIB, format_size

log = logging.getLogger(__name__)

CHECKSUM_FILE_LIMIT = MIB
_SIG = ".sig"  # with a SHA-1, as ganeti-instance-image has it


def fetch_checksum(
    site: Site, name: str, check: Callable[[], None], *, attempts: int = ATTEMPTS
) -> tuple[Checksum, str]:
    """Return the checksum of the file name on the site, and the name of the checksum file that gives it.

    Raises FetchError when none gives one, NotThereError when there is no such file either, UnreachableError when the
    site cannot be asked.
    """
    there: list[str] = []
    for source, alone in _sources(name):
        url = site.url(source)
        try:
            found = find_checksum(
                _small_file(site, source, check, attempts), name, alone=alone, sha1=source.endswith(_SIG)
            )
        except NotThereError as error:
            log.debug("%s", error)
            continue
        except NotUnderstoodError as error:
            there.append(f"{source} {error}")
            continue
        except ValueError as error:
            raise FetchError(f"{url}: {error}; expected one") from None
        if found is not None:
            log.debug("%s: %s for %s", url, found, name)
            return found, source
        there.append(f"{source} does not list it")
    _check_there(site, name)
    raise FetchError(_no_checksum(site, name, there))


def _sources(name: str) -> list[tuple[str, bool]]:
    """Return the names of checksum files, and whether each is about this one file, in the order of asking."""
    directory = [(source, False) for source in ("SHA256SUMS", "SHA512SUMS", "CHECKSUM")]
    own = [(f"{name}{suffix}", True) for suffix in (".sha256", ".sha512", ".CHECKSUM", _SIG)]
    return [directory[0], own[0], *directory[1:], *own[1:]]


def _no_checksum(site: Site, name: str, there: list[str]) -> str:
    if there:
        return (
            f"{site.url(name)}: no checksum was found beside it: {'; '.join(there)}; expected "
            "'DIGEST  FILE' or 'SHA256 (FILE) = DIGEST', with SHA-256 or SHA-512; or set IMAGE_VERIFY=no to use the "
            "image unchecked"
        )
    sources = ", ".join(source for source, _ in _sources(name))
    return (
        f"{site.url(name)}: no checksum was found beside it; the server has none of {sources}; put one there, or set "
        "IMAGE_VERIFY=no to use the image unchecked"
    )


def _check_there(site: Site, name: str) -> None:
    """Raise NotThereError for a file that the site does not have: a misspelt name is the cause then, not a checksum."""
    with suppress(UnreachableError), site.open(name, {"Range": "bytes=0-0"}):
        pass


def _small_file(site: Site, name: str, check: Callable[[], None], attempts: int) -> bytes:
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
    """Return the checksum of the file open at fd. Raises StorageError, in which name is the file."""
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
