# SPDX-License-Identifier: MIT
"""amend_image(): change options of an existing qcow2 image."""

from __future__ import annotations

import os
from collections import namedtuple

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.create import data_file_path
from pydiskimg.images.open import open_image
from pydiskimg.images.open_store import open_qcow2_store
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.options import refcount_problem
from pydiskimg.images.qcow2.switch.features import (
    downgrade,
    require_downgradable,
    set_data_file,
    set_lazy_refcounts,
    upgrade,
)
from pydiskimg.images.qcow2.switch.refcount_width import change_refcount_width
from pydiskimg.images.resize import resize_image
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import Progress, Store

_Fields = namedtuple(
    "_Fields",
    (
        "version",
        "size",
        "refcount_bits",
        "lazy_refcounts",
        "data_file",
        "data_file_raw",
        "backing_file",
        "backing_format",
    ),
    defaults=(None, None, None, None, None, None, None, None),
)


class Amendment(_Fields):
    """Options of a qcow2 image to change; None leaves an option as it is.

    version is 2 or 3, size is bytes, refcount_bits is a power of two from 1 to 64, lazy_refcounts and data_file_raw are
    bool, and data_file is a name. backing_file and backing_format may only repeat, both, what the image has.

    >>> from pydiskimg import Amendment
    >>> Amendment(version=3, lazy_refcounts=True).refcount_bits is None
    True
    """

    __slots__ = ()


def amend_image(
    path: str | os.PathLike[str],
    amendment: Amendment,
    *,
    format: str | None = None,  # noqa: A002 - the field's word, as in open_image()
    references: AllowedDirectory | None = None,
    progress: Progress | None = None,
) -> None:
    """Change options of the qcow2 image at path; durable on return.

    Each option is changed by one write of the header: after an interruption some of them have changed, and the contents
    of the disk are the same. A smaller size loses the bytes beyond it. format and references are those of open_image();
    references are needed for a new size. progress is called with the bytes that are done and their total.

    Raises UnsupportedImageError for a change that is not possible, before anything has changed, and what opening and
    writing raise.

    >>> from pydiskimg import Amendment, amend_image
    >>> amend_image("disk.qcow2", Amendment(refcount_bits=64, lazy_refcounts=True))
    """
    name = os.fspath(path)
    with open_qcow2_store(path, format=format) as store:
        header = read_header(store)
        require_changeable(header, name)
        _check(store, header, amendment)
    if amendment.size is not None:
        open_image(path, format="qcow2", references=references).close()
    with open_qcow2_store(path, format="qcow2") as store:
        if amendment.version == 3:
            upgrade(store)
        if amendment.refcount_bits is not None:
            change_refcount_width(store, amendment.refcount_bits)
        if amendment.data_file is not None or amendment.data_file_raw is not None:
            file_name = None if amendment.data_file is None else os.fsencode(amendment.data_file)
            set_data_file(store, name=file_name, is_raw=amendment.data_file_raw)
        if amendment.lazy_refcounts is not None:
            set_lazy_refcounts(store, lazy=amendment.lazy_refcounts)
    if amendment.size is not None:
        resize_image(path, lambda _: amendment.size, format="qcow2", shrink=True, references=references)
    if amendment.version == 2:
        with open_qcow2_store(path, format="qcow2") as store:
            downgrade(store)
    if progress is not None:
        progress(1, 1)


def _check(store: Store, header: Header, amendment: Amendment) -> None:
    """Refuse impossible changes, before any change."""
    _check_backing(store.name, header, amendment)
    version = header.version if amendment.version is None else amendment.version
    bits = header.refcount_bits if amendment.refcount_bits is None else amendment.refcount_bits
    problem = refcount_problem(bits)
    if version not in (2, 3):
        problem = f"version {version} is not written; expected 2 (0.10) or 3 (1.1)"
    elif amendment.refcount_bits is not None and version < 3 and bits != 16:
        problem = f"reference counts of {bits} bits need compat=1.1"
    elif amendment.lazy_refcounts and version < 3:
        problem = "lazy_refcounts=on needs compat=1.1"
    elif amendment.data_file is not None and not header.has_data_file:
        problem = "has no external data file, whose name could be changed; convert it to an image that has one"
    elif amendment.data_file_raw and not header.data_file_raw:
        problem = "data_file_raw=on is possible for new images only; convert it"
    elif amendment.size is not None and amendment.size > header.size and version < 3 and header.nb_snapshots:
        problem = "an image of version 2 (0.10) cannot change its size with snapshots; delete them first"
    if problem is not None:
        raise UnsupportedImageError(f"{store.name}: {problem}")
    if amendment.data_file:
        data_file_path(store.name, amendment.data_file)
    if version < 3 <= header.version:
        require_downgradable(store, header, refcount_bits=bits, size=amendment.size)


def _check_backing(name: str, header: Header, amendment: Amendment) -> None:
    wanted = amendment.backing_file, amendment.backing_format
    if wanted == (None, None):
        return
    # As qemu-img does, take an option that is not given for one that the image must not have.
    found = tuple(text and os.fsdecode(text) for text in (header.backing_file, header.backing_format))
    if wanted != found:
        raise UnsupportedImageError(f"{name}: another backing file is given by: pydiskimg rebase")
