# SPDX-License-Identifier: MIT
"""References: the files that an image names, and the policy that decides whether they are opened.

An image may be hostile: the backing file that it names can be /etc/shadow, a device, or another guest's disk. So files
that an image names are not opened, or examined, unless the caller allows a directory for them; the kernel then ensures
that no name and no symlink leads out of that directory (beneath.py).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydiskimg.errors import ReferenceDeniedError, UnsupportedImageError, storage_error
from pydiskimg.images.raw import RawSource
from pydiskimg.linux.beneath import below, open_beneath
from pydiskimg.linux.procfs import require_proc
from pydiskimg.protocols import ImageBytes
from pydiskimg.text import is_address, quoted, shown_name

MAX_NAME = 1023
"""Bytes in a name, as the qcow2 specification has it for backing files."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that an image needs, as the image describes it.

    name is from the image, any bytes. role is "backing file" or "data file". image is the image's name in messages, and
    directory its directory ("" for the current one), to which a relative name is relative.
    """

    name: bytes
    role: str
    image: str
    directory: str

    @property
    def path(self) -> str:
        """The path of the name, whether or not the file exists."""
        return os.path.join(self.directory, self.name.decode("utf-8", "surrogateescape"))

    def __str__(self) -> str:
        name = self.name if b"://" not in self.name else shown_name(os.fsdecode(self.name))
        return f"{self.image}: names the {self.role} {quoted(name)}"


def denied(reference: Reference) -> ReferenceDeniedError:
    """Return the error for a reference if no directory is allowed; the file is not examined."""
    check_name(reference)
    return ReferenceDeniedError(
        f"{reference}, which would be the file {_shown(reference.path)}; it was not opened, since files that an image "
        "names are opened only below a directory that is allowed: --allow-references DIR, or "
        "references=allow_references(DIR)",
        reference=str(reference),
    )


class AllowedDirectory:
    """The directory below which images may name other files. Made by allow_references(), and valid inside its block.

    >>> from pydiskimg import AllowedDirectory, allow_references
    >>> with allow_references(".") as references:
    ...     isinstance(references, AllowedDirectory)
    True
    """

    def __init__(self, fd: int, path: str, spelling: str) -> None:
        self._fd = fd
        self._path = path
        self._names = [_bytes(path), _bytes(spelling)]

    def open(self, reference: Reference) -> ImageBytes:
        """Open what reference names, for reading; close() of the result closes it.

        Raises UnsupportedImageError for a name that is not a plain file name or leads out of the directory, and for
        anything but a regular file; StorageError when the system refuses.
        """
        check_name(reference)
        if is_address(reference.directory) and not os.path.isabs(reference.name):
            raise self._outside(reference)
        require_proc()
        name = reference.path
        inside = self._below(reference)
        try:
            # An O_PATH descriptor: opening a pipe would wait, and opening a device may have effects.
            handle = open_beneath(self._fd, inside, self._names)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise self._outside(reference) from error
            raise storage_error(error, name, f"cannot open the {reference.role} of {reference.image}") from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnsupportedImageError(
                    f"{reference}, and {_shown(name)} is not a regular file; it was not opened, since images may name "
                    "regular files only"
                )
            fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, name, f"cannot open the {reference.role} of {reference.image}") from error
        finally:
            os.close(handle)
        return RawSource(fd, name=name, size=os.fstat(fd).st_size, owned=True)

    def close(self) -> None:
        """Close the directory: nothing more can be opened. May be called repeatedly."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _below(self, reference: Reference) -> bytes:
        """The path from the allowed directory on.

        Only the part before it is compared as text: the real path of a directory has no symlinks, so ".." can be
        resolved in it. The kernel resolves the rest, with its symlinks and "..".
        """
        parts = reference.name.decode().split("/")
        directory = "/" if parts[0] == "" else os.path.realpath(reference.directory or ".")
        while parts and parts[0] in ("", ".", ".."):
            if parts.pop(0) == "..":
                directory = os.path.dirname(directory)
        inside = below(_bytes("/".join([directory, *parts])), self._names)
        if inside is None:
            raise self._outside(reference)
        return b"/".join(inside)

    def _outside(self, reference: Reference) -> UnsupportedImageError:
        return UnsupportedImageError(
            f"{reference}, which would be the file {_shown(reference.path)}; it was not opened, since that is not "
            f"below the directory that is allowed, {_shown(self._path)}"
        )


@contextmanager
def allow_references(directory: str | os.PathLike[str]) -> Iterator[AllowedDirectory]:
    """Allow images to name regular files below directory while the block lasts; pass the result to open_image().

    A name in an image is relative to the directory of that image, as for QEMU; an absolute name is allowed when it lies
    below directory. No ".." and no symbolic link leads out of it. Files that were opened stay open after the block,
    until their image is closed. directory may be an http:// or https:// address: images may then name what lies below
    that address, and no files.

    Raises StorageError when the directory cannot be opened.

    >>> from pydiskimg import allow_references, new_overlay, open_image
    >>> new_overlay("top.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> with allow_references(".") as references, open_image("top.qcow2", references=references) as image:
    ...     image.size
    67108864
    """
    name = os.fsdecode(directory)
    if is_address(name):
        from pydiskimg.images.allowed_address import AllowedAddress  # imported here: urllib takes long to import
        from pydiskimg.web.address import parse_address

        yield AllowedAddress(parse_address(name))
        return
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
        raise storage_error(cause, name, "cannot open the directory that images may name files of") from error
    try:
        resolved, spelling = os.path.realpath(name), os.path.join(os.getcwd() if name[:1] != "/" else "", name)
    except OSError as error:  # the current directory was removed
        os.close(fd)
        raise storage_error(
            error, name, "cannot determine the path of the directory that images may name files of"
        ) from error
    # A path with ".." after symlinks may be another one than its text suggests.
    allowed = AllowedDirectory(fd, resolved, resolved if ".." in spelling.split("/") else os.path.normpath(spelling))
    try:
        yield allowed
    finally:
        allowed.close()


def check_name(reference: Reference) -> None:
    """Raise UnsupportedImageError for a name that can never be opened: of a protocol, or not text."""
    name = reference.name
    scheme, colon, _ = name.partition(b"/")[0].partition(b":")
    if colon:
        advice = "write the name of a file into the image with: qemu-img rebase -u"
        if is_address(os.fsdecode(name)):
            advice = "an address is opened only below an allowed one: --allow-references ADDRESS"
        raise UnsupportedImageError(
            f"{reference}, which would be opened by the protocol {quoted(scheme)}; nothing was opened, since only "
            f"plain names of files are understood; {advice}"
        )
    check_text(reference)


def check_text(reference: Reference) -> None:
    """Raise UnsupportedImageError for a name that is not text, or too long."""
    name = reference.name
    if len(name) > MAX_NAME:
        raise UnsupportedImageError(
            f"{reference}, whose name has {len(name)} bytes; nothing was opened, at most {MAX_NAME} are allowed"
        )
    try:
        valid = name.decode().isprintable()
    except UnicodeDecodeError:
        valid = False
    if not valid:
        raise UnsupportedImageError(
            f"{reference}, which is not printable UTF-8 text; nothing was opened, since such a name is not trusted"
        )


def _shown(path: str) -> str:
    return quoted(_bytes(path))


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
