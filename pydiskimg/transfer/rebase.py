# SPDX-License-Identifier: MIT
"""rebase(): an image stands on another backing file, and shows what it did.

    top      |  A  |     |     |     |          |  A  |     |  g  |     |    g differs: it is written into top
    old      |  e  |  f  |  g  |  h  |    ->
    new      |  x  |  f  |  y  |  h  |          |  x  |  f  |  y  |  h  |

What the image does not hold is compared, cluster by cluster; the header names the new file when all that differs is
durable.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.open import open_raw_disk
from pydiskimg.disks.store import store_of
from pydiskimg.errors import InUseError, UnsupportedImageError
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
    """Let the qcow2 image at path stand on another backing file, and show the same bytes as before; durable on return.

    backing is the name that the image gets, relative to its own directory; "" lets it stand on none, and it then holds
    everything itself. The caller names that file, so it is opened; backing_format is its format, raw or qcow2, which
    the image records (None: by the contents). references are the files that the old chain, and the new one below
    backing, may name, as for open_image(). compress compresses the clusters that are written. progress counts the bytes
    that are compared.

    The image is locked and refused as open_disk() does, and so is each of its backing files, the old and the new ones,
    where another program writes it. After an interruption it stands on the old file and shows the
    same; rebase() may be called again. Raises what opening, reading and writing raise.
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
    """Let the qcow2 image at path name another backing file, or none (""), and compare nothing: `rebase -u`.

    The image shows the same only when the files hold the same, which is the caller's word.
    """
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
            f"{backing}: is the name of a protocol to QEMU, and only files are opened; write it unseen with -u"
        )
    path = os.path.join(os.path.dirname(image), backing)
    return stack.enter_context(open_image(path, format=form, references=references))


def _refuse_itself(new: ImageSource | None, name: str) -> None:
    for path in () if new is None else new.files():
        if os.path.exists(path) and os.path.samefile(path, name):
            raise InUseError(f"{name}: cannot stand on itself, and {path} is the same file", errno=None, filename=name)
