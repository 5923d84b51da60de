# SPDX-License-Identifier: MIT
"""An image from IMAGE_URL in CACHE_DIR: already there, or fetched and checked by one create while others wait."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ganeti_os.fetch.cache import CachedFile, Origin, Record, forgotten, open_cache
from ganeti_os.fetch.checksums import Checksum
from ganeti_os.fetch.download import Download, NotNeeded, open_part
from ganeti_os.fetch.expected_checksum import Expected, digest, fetch_checksum
from ganeti_os.fetch.lock import Fetcher, ImageLock, using
from ganeti_os.fetch.site import Site
from ganeti_os.log import Messages, ProgressLines
from ganeti_os.settings.settings import Settings
from pydiskimg.errors import storage_error
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size
from pydiskimg.web.errors import FetchError, NotThereError, UnreachableError
from pydiskimg.web.retries import ATTEMPTS

if TYPE_CHECKING:
    from ganeti_os.fetch.signature import Keyring

log = logging.getLogger(__name__)

WAIT_IN_SILENCE_SECONDS = 1.0
_ATTEMPTS_WITH_CACHE = 2  # after which a previously checked image can be used instead


@contextmanager
def fetched_first(
    candidates: Sequence[tuple[str, ...]], settings: Settings, messages: Messages, *, instance: str = ""
) -> Iterator[tuple[str, ...]]:
    """Fetch the first of the candidates that the site has, each all files of an image, as fetched() does; give which.

    If the site does not answer, those in the cache are used. Raises NotThereError if the site has none of them.
    """
    problem: FetchError | None = None
    left = list(candidates)
    with ExitStack() as stack:
        while left:
            names = left.pop(0)
            try:
                with ExitStack() as attempt:
                    for name in names:
                        attempt.enter_context(fetched(name, settings, messages, instance=instance))
                    stack.push(attempt.pop_all())
                break
            except NotThereError as error:
                problem = problem or error
            except UnreachableError as error:
                problem = error
                left = [others for others in left if _are_cached(others, settings.cache_dir)]
        else:
            assert problem is not None
            raise _none_there(problem, candidates)
        yield names


def _are_cached(names: Sequence[str], directory: str) -> bool:
    return all(os.path.exists(os.path.join(directory, name)) for name in names)


def _none_there(problem: FetchError, candidates: Sequence[tuple[str, ...]]) -> FetchError:
    if not isinstance(problem, NotThereError):
        return problem
    others = " or ".join(names[0] for names in candidates[1:])
    nor = f", nor does it have {others}" if others else ""
    return NotThereError(f"{problem}{nor}; the name comes from IMAGE_NAME, ARCH and IMAGE_TYPE")


@contextmanager
def fetched(name: str, settings: Settings, messages: Messages, *, instance: str = "") -> Iterator[str]:
    """Give the path of the image IMAGE_URL/name in CACHE_DIR, which stays there while the context lasts.

    It is fetched unless it is already there, and checked unless IMAGE_VERIFY=no. With IMAGE_CLEANUP=yes it is deleted
    afterwards, unless the block fails or another create on the node needs it. Raises FetchError, DoesNotFitError and
    StorageError.
    """
    site = Site(settings.image_url, settings.image_proxy, check=messages.check)
    open_cache(settings.cache_dir)
    _forget(settings.cache_dir, messages)
    file = CachedFile(settings.cache_dir, name)
    done = False

    def last() -> None:
        if done and settings.image_cleanup:
            file.delete()
            log.info("%s is deleted (IMAGE_CLEANUP=yes)", file.path)

    with using(file.lock, messages.check, last) as lock:
        me = Fetcher(os.getpid(), instance)
        with messages.step("fetching"), lock.fetching(me, _Waiting(file, messages)):
            _Fetching(site, file, messages, lock, me, _keyring(settings)).run(verify=settings.image_verify)
        yield file.path
        done = True


def _keyring(settings: Settings) -> Keyring | None:
    if not settings.image_keyring:
        return None
    from ganeti_os.fetch.signature import read_keyring  # imported here: the library is optional

    return read_keyring(settings.image_keyring)


def _forget(directory: str, messages: Messages) -> None:
    """Delete parts that have not grown for long: half-fetched images that are no longer wanted."""

    def busy(_fetcher: Fetcher | None) -> None:
        raise BlockingIOError

    try:
        for file in forgotten(directory):
            with (
                suppress(BlockingIOError),
                using(file.lock, messages.check, lambda: None) as lock,
                lock.fetching(Fetcher(os.getpid(), ""), busy),
            ):
                file.discard_part()
                log.info("%s is deleted: it has not grown for a week", file.part)
    except OSError as error:
        log.warning("%s", storage_error(error, directory, "cannot delete old parts of images"))


class _Waiting:
    """What is logged while another process fetches the image."""

    def __init__(self, file: CachedFile, messages: Messages) -> None:
        self._file = file
        self._check = messages.check
        self._loud = time.monotonic() + WAIT_IN_SILENCE_SECONDS
        self._pid = 0
        self._lines = ProgressLines("")

    def __call__(self, fetcher: Fetcher | None) -> None:
        self._check()
        if fetcher is None or time.monotonic() < self._loud:
            return
        if fetcher.pid != self._pid:
            self._pid = fetcher.pid
            self._lines = ProgressLines(f"fetched by process {fetcher.pid}")
            log.info("waiting for %s, which fetches %s", fetcher, self._file.path)
        try:
            self._lines(os.stat(self._file.part).st_size, fetcher.total)
        except FileNotFoundError:  # not begun, or complete
            return


class _Fetching:
    """The work of the process that fetches, while no other does."""

    def __init__(
        self,
        site: Site,
        file: CachedFile,
        messages: Messages,
        lock: ImageLock,
        me: Fetcher,
        keyring: Keyring | None,
    ) -> None:
        self._site = site
        self._keyring = keyring
        self._file = file
        self._messages = messages
        self._lock = lock
        self._me = me
        self._url = site.url(file.name)

    def run(self, *, verify: bool) -> None:
        """Return when the image is in the cache and may be used."""
        self._file.tidy()
        record = self._file.record()
        if record is not None and record.origin.url != self._url:
            record = None  # from another server
        if verify:
            self._verified(record)
        else:
            self._unverified(record)

    def _verified(self, record: Record | None) -> None:
        if record is not None and self._keyring is not None and not self._keyring.has(record.signer):
            record = None  # checked, but by an unsigned checksum file
        known = record.checksum if record else None
        try:
            attempts = _ATTEMPTS_WITH_CACHE if known else ATTEMPTS
            wanted = fetch_checksum(
                self._site, self._file.name, self._messages.check, attempts=attempts, keyring=self._keyring
            )
        except UnreachableError as error:
            if known is None:
                raise
            log.warning("%s; %s is used as it was checked before (%s)", error, self._file.path, known)
            return
        self._log_trust(wanted)
        if known == wanted.checksum:
            log.info("%s is already in the cache (%s)", self._file.path, known)
        elif not self._is_there(known, wanted):
            self._fetch(wanted)

    def _log_trust(self, wanted: Expected) -> None:
        """Log who signed the checksum, and whether it can be forged."""
        url = self._site.url(wanted.source)
        if wanted.signature:
            log.debug("%s is not signed; the signature is of the image", url)
        elif wanted.signer:
            log.info("%s is signed by %s", url, wanted.signer)
        else:
            log.info("%s is not verified by a signature: IMAGE_KEYRING is not set", url)
        if wanted.checksum.algorithm == "sha1":
            log.warning("%s is checked by SHA-1 only, which can be forged; put a SHA256SUMS on the server", self._url)

    def _is_there(self, known: Checksum | None, wanted: Expected) -> bool:
        """True if the cache has the expected file without a record of it."""
        path, expected = self._file.path, wanted.checksum
        status = self._file.status()
        if status is None:
            return False
        if known is None or known.algorithm != expected.algorithm:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise storage_error(error, path, "cannot open the image in the cache") from error
            try:
                status = os.fstat(fd)
                if self._digest(fd, expected, path) == expected:
                    self._file.write_record(Record.of(status, Origin(self._url), expected, self._signer(fd, wanted)))
                    log.info("%s is already in the cache (%s)", path, expected)
                    return True
            finally:
                os.close(fd)
        log.info("%s is not the version that the server has; it is fetched anew", path)
        return False

    def _fetch(self, wanted: Expected) -> None:
        expected = wanted.checksum
        with open_part(self._file) as fd:
            earlier = self._file.origin() if os.fstat(fd).st_size else None
            if earlier is not None:
                log.info("%s: %s had already arrived", self._url, format_size(os.fstat(fd).st_size))
            for begun in (earlier, None) if earlier else (None,):
                origin = self._download(fd, begun, checked=True)
                found = self._digest(fd, expected, self._file.part)
                if found == expected:
                    try:
                        signer = self._signer(fd, wanted)
                    except FetchError:
                        os.ftruncate(fd, 0)
                        raise
                    self._file.publish(fd, origin, found, signer)
                    log.info("%s is fetched and checked (%s)", self._url, found)
                    return
                os.ftruncate(fd, 0)
                if begun is not None:
                    log.info("%s: the part that had already arrived is of another version; starting over", self._url)
        raise FetchError(f"{self._url}: has {found}, but {wanted.source} says {expected}; it was deleted and not used")

    def _signer(self, fd: int, wanted: Expected) -> str:
        """Return who signed the checksum or, if that is unsigned, the image open at fd. Raises FetchError."""
        if not wanted.signature:
            return wanted.signer
        assert self._keyring is not None
        from ganeti_os.fetch.signature import NotSignedError

        url = self._site.url(wanted.signature_source)
        with self._messages.step("verifying"):
            try:
                signer = self._keyring.signer(fd, wanted.signature)
            except NotSignedError as error:
                raise FetchError(f"{url}: {error}; the image was not used") from None
        log.info("%s is signed by %s (%s)", self._url, signer, wanted.signature_source)
        return signer

    def _unverified(self, record: Record | None) -> None:
        log.warning("IMAGE_VERIFY=no: %s is used without a check", self._url)
        with open_part(self._file) as fd:
            try:
                # A part of an earlier run is not continued: damage by a crash would not be noticed.
                origin = self._download(fd, None, checked=False, current=record.origin if record else None)
            except NotNeeded:
                log.info("%s is already in the cache", self._file.path)
            except UnreachableError as error:
                if record is None:
                    raise
                log.warning("%s; %s is used as it was fetched before", error, self._file.path)
            else:
                self._file.publish(fd, origin, None)
                log.info("%s is fetched", self._url)

    def _download(self, fd: int, begun: Origin | None, *, checked: bool, current: Origin | None = None) -> Origin:
        messages = self._messages
        return Download(
            site=self._site,
            file=self._file,
            fd=fd,
            progress=messages.progress("fetched"),
            check=messages.check,
            started=lambda total: self._lock.tell(Fetcher(self._me.pid, self._me.instance, total)),
            checked=checked,
            origin=begun,
            current=current,
        ).run()

    def _digest(self, fd: int, expected: Checksum, name: str) -> Checksum:
        return digest(fd, expected.algorithm, name=name, progress=self._messages.progress("checked"))
