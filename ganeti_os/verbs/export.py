# SPDX-License-Identifier: MIT
"""export: one of the instance's disks becomes a qcow2 on standard output (docs/backup-format.md)."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack

from ganeti_os.log import Messages
from ganeti_os.request import Request, RequestError
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.host.claims import claim_for_reading
from pydiskimg.host.same_bytes import overlap
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import Progress
from pydiskimg.transfer.send import write_stream
from pydiskimg.units import format_size
from pydiskimg.volumes.used import used_source

log = logging.getLogger(__name__)

_STANDARD_OUTPUT = 1


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Write the request's device to standard output, without the space that its file systems have free.

    The disk is raw; its first bytes do not count: a guest wrote them. No create, import or rename of this package
    writes to it meanwhile; a virtual machine may.
    """
    assert request.device is not None
    if os.isatty(_STANDARD_OUTPUT):
        raise RequestError("standard output is a terminal; send the backup to a file or a pipe")
    started = time.monotonic()
    compression = _compression(settings)
    with ExitStack() as claims, open_raw(request.device) as disk:
        if overlap(os.fstat(_STANDARD_OUTPUT), os.fstat(disk.fileno())):
            message = f"{disk.name}: is standard output itself; send the backup to another file"
            raise InUseError(message, errno=None, filename=disk.name)
        claim_for_reading(claims, disk.fileno(), disk.name)
        if not disk.size:  # as a device that is not attached has
            raise RequestError(f"{request.device}: has 0 bytes; expected a disk with data to back up")
        with messages.step("looking for used space"):
            source = used_source(disk)
            for note in source.notes:
                log.info("%s", note)
            used = source.used_bytes
            log.info("%s of %s are in use", format_size(used), format_size(disk.size))
            _announce(request.size_fd, used)
        with messages.step("exporting"):
            written = write_stream(
                source,
                _STANDARD_OUTPUT,
                compression_type=compression,
                progress=_of_what_is_used(messages.progress("exported"), used),
                announce=lambda size: _announce(request.size_fd, size),
            )
    log.info(
        "%s: %s became a backup of %s (%.1f s)",
        request.device,
        format_size(disk.size),
        format_size(written),
        time.monotonic() - started,
    )


def _compression(settings: Settings) -> str | None:
    """Return the type of the compression, None for none; it is checked here to name the setting in the message."""
    wanted = settings.export_compression
    if wanted == "zstd":
        from pydiskimg.images.qcow2.compress import compressor  # imported here: zlib has no such question

        try:
            compressor(wanted, name="")
        except UnsupportedImageError as error:
            raise SettingsError(
                f"EXPORT_COMPRESSION=zstd needs a zstd library, and none is installed for {sys.executable}; install "
                "the package python3-zstandard, or set EXPORT_COMPRESSION=zlib"
            ) from error
    return None if wanted == "none" else wanted


def _of_what_is_used(progress: Progress, used: int) -> Progress:
    """Count the bytes of the disk that are in use, although a stream counts those of its two passes."""
    return lambda done, total: progress(done * used // max(1, total), used)


def _announce(fd: int | None, size: int) -> None:
    """Tell Ganeti the number of bytes of the stream, for its estimate of the time, if that is possible."""
    if fd is None or fd <= 2:
        return
    try:
        os.write(fd, b"%d\n" % size)
    except (OSError, OverflowError) as error:
        log.debug("EXP_SIZE_FD=%d: %s", fd, error)
