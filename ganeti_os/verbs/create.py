# SPDX-License-Identifier: MIT
"""create: an image becomes the instance's disk."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from ganeti_os import hooks
from ganeti_os.diskimage import install_disk_image
from ganeti_os.imagefile import find_image
from ganeti_os.installation import Installation
from ganeti_os.log import Messages
from ganeti_os.protocol import Request
from ganeti_os.settings import Settings, check_contradictions
from ganeti_os.tarball import install_tarball
from pydiskimg.disk import open_disk

log = logging.getLogger(__name__)


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Install the image that the settings name onto the request's first disk.

    Everything that can be refused is refused before the first byte is written; the partition table comes last.
    """
    if settings.cdinstall:
        log.info("CDINSTALL=yes: nothing is prepared; install the instance from a CD")
        return
    started = time.monotonic()
    check_contradictions(settings)
    image = find_image(settings)
    scripts = [] if settings.nomount else hooks.enabled(settings.customize_dir)
    with ExitStack() as stack:
        disk = stack.enter_context(open_disk(request.disks[0].path, writable=True))
        swap = None
        if request.swap_path and settings.swap:
            swap = stack.enter_context(open_disk(request.swap_path, writable=True))
        installation = Installation(request, settings, messages, disk, swap, tuple(scripts))
        if image.is_archive:
            install_tarball(image.path, installation)
        else:
            install_disk_image(image, installation)
    log.info("%s is installed on %s (%.1f s)", image.path, disk.name, time.monotonic() - started)
