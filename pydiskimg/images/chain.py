# SPDX-License-Identifier: MIT
"""A qcow2 image with all the files below it: its backing files, and the data files of each."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.errors import InUseError, InvalidImageError, UnsupportedImageError
from pydiskimg.images import FORMATS, detect
from pydiskimg.images.qcow2.header import Header, read_header, require_readable
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.raw import RawSource, describe
from pydiskimg.protocols import ImageBytes, Source
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.disks.file import FileDisk
    from pydiskimg.images.qcow2.write.disk import Qcow2Disk
    from pydiskimg.images.references import AllowedDirectory

MAX_BACKING_FILES = 32


class _Layer:
    """One qcow2 file of the chain, and the data file of its clusters if they are not in it."""

    def __init__(self, file: ImageBytes, header: Header, data_file: Source | None) -> None:
        self.file = file
        self.header = header
        self.data_file = data_file


def open_chain(
    file: ImageBytes, opened: ExitStack, *, references: AllowedDirectory | None, snapshot: str | None
) -> Qcow2Source:
    """Return the disk in the qcow2 file, over all files that it names; close() of it closes opened.

    opened owns the file, and gets every file that is opened here. snapshot is the topmost image's. Raises as
    open_image() does; no file is closed then.
    """
    chain = _Chain(opened, references)
    bottom = chain.descend(file)
    # The caches of one image are divided between the layers, so that memory does not grow with the chain.
    share = len(chain.layers)
    for layer in reversed(chain.layers):
        top = layer is chain.layers[0]
        bottom = open_qcow2(
            layer.file,
            header=layer.header,
            backing=bottom,
            data_file=layer.data_file,
            snapshot=snapshot if top else None,
            on_close=opened.close if top else None,
            cache_share=share,
        )
    assert isinstance(bottom, Qcow2Source)
    return bottom


def open_owned_chain(file: ImageBytes, **how: Any) -> Qcow2Source:
    """As open_chain(); close() of the disk also closes the file. Only that file stays open after an error."""
    with ExitStack() as failure:
        opened = failure.enter_context(ExitStack())
        opened.callback(file.close)
        source = open_chain(file, opened, **how)
        failure.pop_all()
        return source


def open_chain_disk(
    stack: ExitStack, disk: DescriptorDisk, *, references: AllowedDirectory | None, compress: bool, writable: bool
) -> Qcow2Disk:
    """Return the virtual disk of the qcow2 image on disk; stack closes what is opened for it."""
    from pydiskimg.disks.store import store_of  # imported here: reading does not need it
    from pydiskimg.images.qcow2.write.disk import open_qcow2_disk

    # The readable image finds its backing files by the policy, and keeps them open.
    opened = stack.enter_context(ExitStack())
    chain = open_chain(describe(disk.fd, name=disk.name), opened, references=references, snapshot=None)
    if writable:
        lock_files(backing_sources(chain))
    data_file = _data_file_disk(stack, chain, writable=writable)
    image = open_qcow2_disk(store_of(disk), backing=chain.backing, data_file=data_file, compress=compress)
    if not writable:
        image.forbid_writing()
    stack.callback(image.close)
    return image


def _data_file_disk(stack: ExitStack, chain: Qcow2Source, *, writable: bool) -> FileDisk | None:
    """Open the data file that a policy has opened for reading also for writing, locked like an image."""
    if chain.data is chain.file:
        return None
    from pydiskimg.disks.file import FileDisk
    from pydiskimg.disks.open import open_raw_disk

    found = chain.data
    assert isinstance(found, RawSource)
    disk = stack.enter_context(open_raw_disk(found.name, writable=writable))
    status = os.fstat(disk.fd)
    if (status.st_dev, status.st_ino) != found.identity or not isinstance(disk, FileDisk):
        raise InUseError(
            f"{found.name}: was replaced by another file while it was opened", errno=None, filename=found.name
        )
    return disk


class _Chain:
    """The layers from the topmost one downwards, in the order of discovery."""

    def __init__(self, opened: ExitStack, references: AllowedDirectory | None) -> None:
        self.layers: list[_Layer] = []
        self._opened = opened
        self._references = references
        self._seen: dict[tuple[int, int] | str, str] = {}

    def descend(self, file: ImageBytes) -> Source | None:
        """Collect the layers below the qcow2 file, including itself; return the file below the last one."""
        self._seen[file.identity] = file.name
        while True:
            header = read_header(file)
            require_readable(header, file.name)
            self.layers.append(_Layer(file, header, self._data_file(file, header)))
            if header.backing_file is None:
                return None
            if len(self.layers) > MAX_BACKING_FILES:
                raise UnsupportedImageError(
                    f"{file.name}: is the end of a chain of {MAX_BACKING_FILES} backing files and names one more, but "
                    "at most that many are opened; merge some with: qemu-img convert -O qcow2 OLD NEW"
                )
            backing_format = stated_backing_format(header, file.name)
            backing = self._open(header.backing_file, "backing file", file)
            if backing_format is None:
                require_raw(backing, file.name)
            if backing_format != "qcow2":
                row = FORMATS[backing_format or "raw"]
                return row.open(backing, references=self._references, snapshot=None)
            file = backing

    def _data_file(self, file: ImageBytes, header: Header) -> Source | None:
        if not header.has_data_file:
            return None
        if header.data_file is None:
            raise InvalidImageError(f"{file.name}: keeps its data in an external file, and does not say in which")
        return self._open(header.data_file, "data file", file)

    def _open(self, name: bytes, role: str, file: ImageBytes) -> ImageBytes:
        from pydiskimg.images.references import Reference, denied  # imported here, because few images name any

        reference = Reference(name, role, file.name, os.path.dirname(file.name))
        if self._references is None:
            raise denied(reference)
        found = self._opened.enter_context(self._references.open(reference))
        if found.identity in self._seen:
            raise InvalidImageError(
                f"{reference}, which is {self._seen[found.identity]} again; an image cannot be its own backing file"
            )
        self._seen[found.identity] = found.name
        return found


def backing_sources(source: Source) -> Iterator[Source]:
    """Yield the files below an open image, the next one first."""
    while isinstance(source, Qcow2Source) and source.backing is not None:
        source = source.backing
        yield source


def lock_files(sources: Iterable[Source]) -> None:
    """Keep other writers from the files below an image that is written, until they are closed.

    Raises InUseError when one of them is written.
    """
    from pydiskimg.host.claims import claim_backing_file  # imported here: reading takes no locks

    for source in sources:
        for file in (source.file, source.data) if isinstance(source, Qcow2Source) else (source,):
            if isinstance(file, RawSource):  # a file at an address has no locks
                claim_backing_file(file.fileno(), file.name)


def file_of(source: Source) -> RawSource:
    """Return the open file of an image of a chain."""
    file = source.file if isinstance(source, Qcow2Source) else source
    assert isinstance(file, RawSource)
    return file


def stated_backing_format(header: Header, name: str) -> str | None:
    """The format that the image gives its backing file, or what it comes to; None when it gives none."""
    if header.backing_format is None:
        return None
    if (stated := os.fsdecode(header.backing_format)) in FORMATS:
        return stated
    if stated == "file":  # the protocol of files, by which QEMU reads raw images
        return "raw"
    raise UnsupportedImageError(
        f"{name}: says that the format of its backing file {quoted(header.backing_file or b'')} is "
        f"{quoted(header.backing_format)}; only {' and '.join(FORMATS)} are read"
    )


def require_raw(backing: ImageBytes, name: str) -> None:
    """Accept a backing file without a stated format only if every program would read it as raw."""
    try:
        found = detect(backing)
    except UnsupportedImageError:
        found = "another format"
    if found != "raw":
        raise UnsupportedImageError(
            f"{name}: does not say which format its backing file has; {quoted(os.fsencode(backing.name))} looks like "
            f"{found}, and may be a raw disk that a guest wrote that to; write the right format into the image with: "
            "qemu-img rebase -u -F FORMAT -b BACKING-FILE"
        )
