# SPDX-License-Identifier: MIT
"""rebase(): give an image another backing file without changing its contents.

    top      |  A  |     |     |     |          |  A  |     |  g  |     |    g differs: it is written to top
    old      |  e  |  f  |  g  |  h  |    ->
    new      |  x  |  f  |  y  |  h  |          |  x  |  f  |  y  |  h  |

Clusters that the image does not have are compared; the header names the new file once all differences are durable.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.open import open_raw_disk
from pydiskimg.disks.store import store_of
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.backing_name import check_backing_name, itself
from pydiskimg.images.chain import backing_sources, lock_files, open_chain, open_chain_disk
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.switch.backing import name_backing_file
from pydiskimg.images.raw import describe
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.differences import write_differences

if TYPE_CHECKING:
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageSource, Progress


def rebase(
    path: str | os.PathLike[str],
    backing: str,
    *,
    backing_format: str | None,
    references: AllowedDirectory | None,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Give the qcow2 image at path another backing file, with the same contents of the disk; durable on return.

    backing is the new name, relative to the directory of the image; "" gives it none, and the image then holds all data
    itself. The caller names that file, so it is opened; backing_format ("raw" or "qcow2", None: by its first bytes) is
    recorded. references is for the files that the old chain and the new one name, as for open_image(). compress
    compresses the clusters that are written. progress is called with the bytes that were compared and their total.

    The image is locked and refused as by open_disk(); backing files are refused if another program writes them.
    After an interruption the image has its old backing file and the same contents, and rebase() may be called again.
    Raises what opening, reading and writing raise.

    >>> from pydiskimg import allow_references, new_overlay, open_image, rebase
    >>> new_overlay("top.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> with allow_references(".") as references:
    ...     rebase("top.qcow2", "", backing_format=None, references=references)
    >>> with open_image("top.qcow2") as image:
    ...     list(image.files())
    ['top.qcow2']
    """
    with ExitStack() as stack:
        disk = stack.enter_context(open_raw_disk(os.fspath(path), writable=True))
        opened = stack.enter_context(ExitStack())
        old = open_chain(describe(disk.fd, name=disk.name), opened, references=references, snapshot=None)
        new = _open_new(stack, disk.name, backing, backing_format, references)
        _refuse_itself(new, disk.name)
        top = open_chain_disk(stack, disk, references=references, compress=compress, writable=True)
        if new is not None:
            lock_files([new, *backing_sources(new)])
            top.will_stand_on(new.size)
        write_differences(old, new, top, unit=top.unit, but_its_own=True, progress=progress)
        top.flush()
        form = "" if new is None else backing_format or new.format
        name_backing_file(store_of(disk), os.fsencode(backing), form.encode())


def rename_backing(path: str | os.PathLike[str], backing: str, *, backing_format: str) -> None:
    """Record another backing file in the qcow2 image at path, or none (""), without reading it: `qemu-img rebase -u`.

    backing_format is "raw" or "qcow2". The contents of the disk stay the same only if both backing files have the same
    contents, which is not checked. Durable on return; raises what opening and writing raise.

    >>> from pydiskimg import new_overlay, rename_backing
    >>> new_overlay("top.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> rename_backing("top.qcow2", "disk.qcow2", backing_format="qcow2")
    """
    if backing:
        check_backing_name(os.fspath(path), os.fsencode(backing), os.fsencode(backing_format))
    with ExitStack() as stack:
        disk = stack.enter_context(open_raw_disk(os.fspath(path), writable=True))
        name_backing_file(store_of(disk), os.fsencode(backing), backing_format.encode())


def _open_new(
    stack: ExitStack, image: str, backing: str, form: str | None, references: AllowedDirectory | None
) -> ImageSource | None:
    if not backing:
        return None
    if ":" in backing.partition("/")[0]:
        raise UnsupportedImageError(
            f"{backing}: is the name of a protocol to QEMU, and only files are opened; record it unopened with -u"
        )
    path = os.path.join(os.path.dirname(image), backing)
    return stack.enter_context(open_image(path, format=form, references=references))


def _refuse_itself(new: ImageSource | None, name: str) -> None:
    for path in () if new is None else new.files():
        if os.path.exists(path) and os.path.samefile(path, name):
            raise itself(name, path)
