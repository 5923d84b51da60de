# SPDX-License-Identifier: MIT
"""Turn dump(8)s of a root and a /boot into a disk: partitions, file systems, their files, fstab, the boot loader."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from itertools import chain
from typing import Protocol

from ganeti_os.guest.machine_ids import forget_network_cards
from ganeti_os.install.boot_loader import install_boot_loader
from ganeti_os.install.customise import become_instance
from ganeti_os.install.image_file import ImageFile
from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import (
    NewSystem,
    customise_provisional,
    new_system,
    opened_system,
    prepare_scripts,
    without_boot,
)
from ganeti_os.install.overlay import add_overlay, overlay_brings
from pydiskimg.errors import InvalidImageError, storage_error
from pydiskimg.files.dump import DumpReader, DumpWording, Restored, open_dump
from pydiskimg.files.dump.entries import DumpEntries
from pydiskimg.files.tree import Tree
from pydiskimg.fs.ext4.populate.filling import Filling
from pydiskimg.system import fstab
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.layout import fstab_entries
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

ROOT, BOOT = "root", "boot"


class DumpFile(Protocol):
    """A dump that is read from start to end; name is for messages."""

    name: str

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""


def install_dumps(image: ImageFile, installation: Installation) -> None:
    """Restore an image that is a dump of a root, and one of a /boot if the kernel is inside."""
    with ExitStack() as stack:
        files = [(ROOT, _StoredDump(stack, image.path))]
        if image.boot_path is not None:
            files.append((BOOT, _StoredDump(stack, image.boot_path)))
        restore_dumps(files, installation)


def restore_dumps(dumps: Iterable[tuple[str, DumpFile]], installation: Installation) -> None:
    """Restore the dumps, each ROOT or BOOT, in the order of their arrival; the partition table is written last.

    As in every new installation, /boot gets a partition if the kernel is inside. Root is needed only for customisation
    scripts.
    """
    messages = installation.messages
    prepare_scripts(installation)
    with closing(_readers(dumps)) as readers:
        first = next(readers, None)
        if first is None:
            raise InvalidImageError("the backup has no dump; expected root.dump")
        with new_system(installation) as made:
            with messages.step("restoring"):
                filling = made.filling(installation)
                restored = _restore(chain([first], readers), filling, made, installation)
                if BOOT in restored:
                    filling.join("/boot")
            if made.boot is not None and BOOT not in restored:
                log.warning("there is no dump of /boot, which stays in the root file system; its partition is empty")
                without_boot(made, installation)
            if installation.overlay is not None:
                add_overlay(installation.overlay, filling, messages, hints=made.hints)
            with messages.step("completing the file systems"):
                filling.complete()
            with opened_system(made) as tree:
                with messages.step("writing fstab"):
                    _adapt(tree, made, installation)
                become_instance(installation, tree)
                install_boot_loader(installation, made, tree)
            if installation.scripts:
                customise_provisional(installation, made)


def _readers(dumps: Iterable[tuple[str, DumpFile]]) -> Generator[tuple[str, DumpReader], None, None]:
    """Begin to read each dump in its turn; the first one before the first write."""
    for which, file in dumps:
        with open_dump(file, file.name) as reader:
            yield which, reader


def _restore(
    readers: Iterable[tuple[str, DumpReader]], filling: Filling, made: NewSystem, installation: Installation
) -> set[str]:
    """Restore each dump into its file system; return which dumps existed."""
    restored: set[str] = set()
    for which, reader in readers:
        if which in restored:
            raise InvalidImageError(f"{reader.name}: is the second dump of {which}; expected one of each")
        if which == BOOT and made.boot is None:
            log.warning("%s is not restored: the instance boots a kernel of the node, and has no /boot", reader.name)
            continue
        _restore_one(which, reader, filling, made, installation)
        restored.add(which)
    if ROOT not in restored:
        raise InvalidImageError("the backup has no dump of the root file system; expected root.dump")
    return restored


def _restore_one(which: str, reader: DumpReader, filling: Filling, made: NewSystem, installation: Installation) -> None:
    entries = DumpEntries(reader, installation.messages.progress(f"{which} restored"))
    wording = DumpWording(reader.name, "restore", "restored", made.hints)
    done = Restored()
    added = filling.add(done.counting(entries), wording=wording, replacing=False, to_second=which == BOOT)
    log.info("%s: %d files and %d directories, %s", reader.name, done.files, done.directories, format_size(done.bytes))
    if added.left_out:
        log.warning("%s: %s", reader.name, added.left_out)


class _StoredDump:
    """A dump in a file of the node; the stack closes it."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        self.name = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, path, "cannot open the dump") from error
        stack.callback(os.close, self._fd)

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""
        return os.read(self._fd, length)


def _adapt(tree: Tree, made: NewSystem, installation: Installation) -> None:
    """Make the system find its new file systems, and remove the old machine's network cards."""
    if not overlay_brings(installation.overlay, fstab.PATH):
        fstab.write_entries(tree, fstab_entries(made.volumes, installation.settings.filesystem))
    draft = Draft(tree)
    forget_network_cards(draft)
    draft.write(lambda _: 0)
