# SPDX-License-Identifier: MIT
"""The description of an image: the facts of `qemu-img info --output=json`, under its names, and as lines for people.

Nothing that the image names is opened: an image with references is described from its own bytes alone, and so is one
that is corrupt or encrypted. What only some images have is imported for those.
"""

from __future__ import annotations

import os

from pydiskimg.cli.output import nested_lines, word
from pydiskimg.images.detect import detect_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.raw import open_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.raw import RawSource
    from pydiskimg.protocols import Source

Facts = dict[str, object]


def describe(path: str, format_name: str | None = None) -> Facts:
    """Return the facts about the image at path, in the format of that name or in what its first bytes say.

    Of snapshots and bitmaps, of which there may be thousands, there are iterators: they can be printed once.
    Raises StorageError, InvalidImageError and UnsupportedImageError as open_image() does.
    """
    with open_raw(path) as file:
        return describe_file(file, path, format_name)


def describe_file(file: RawSource, path: str, format_name: str | None) -> Facts:
    """Return the facts about the image in an open file, which stays open; path is shown as its name."""
    found = format_name or detect_image(file)
    if found == "qcow2":
        header = read_header(file)
        facts = {"virtual-size": header.size, "filename": path, "cluster-size": header.cluster_size}
        facts |= {"format": found, "actual-size": file.stored(), "dirty-flag": header.dirty}
        return facts | _qcow2_facts(file, header, path)
    return {
        "virtual-size": file.size,
        "filename": path,
        "format": found,
        "actual-size": file.stored(),
        "dirty-flag": False,
    }


def describe_lines(facts: Facts) -> Iterator[str]:
    """Yield the lines that tell a person the same."""
    from pydiskimg.units import format_bytes, format_size

    rest = dict(facts)
    virtual, actual = rest.pop("virtual-size"), rest.pop("actual-size")
    assert isinstance(virtual, int)
    assert isinstance(actual, int)
    yield f"image: {rest.pop('filename')}"
    yield f"file format: {rest.pop('format')}"
    yield f"virtual size: {format_bytes(virtual)}"
    yield f"disk size: {format_size(actual)}"
    dirty, specific = rest.pop("dirty-flag"), rest.pop("format-specific", None)
    snapshots: Any = rest.pop("snapshots", None)
    for name, value in rest.items():
        yield f"{name.replace('-', ' ')}: {word(value)}"
    if dirty:
        yield "dirty: yes (the reference counts need a repair; reading is not affected)"
    if snapshots is not None:
        from pydiskimg.cli.snapshot import snapshot_lines

        yield "snapshots:"
        yield from snapshot_lines(snapshots)
    if isinstance(specific, dict):
        yield "format specific information:"
        yield from nested_lines(specific["data"], "    ")


def full_backing_filename(path: str, backing: str) -> str:
    """Return where the backing file of the image at path is: relative to the image, unless the name is absolute.

    A name with a protocol (nbd://host, json:{...}) is absolute too.
    """
    has_protocol = ":" in backing.partition("/")[0]
    if has_protocol or backing.startswith("/"):
        return backing
    return path[: path.rfind("/") + 1] + backing


def _qcow2_facts(file: Source, header: Header, path: str) -> Facts:
    facts: Facts = {}
    if header.crypt_method != layout.CRYPT_NONE:
        facts["encrypted"] = True
    if header.backing_file:
        facts["backing-filename"] = backing = os.fsdecode(header.backing_file)
        facts["full-backing-filename"] = full_backing_filename(path, backing)
        if header.backing_format:
            facts["backing-filename-format"] = os.fsdecode(header.backing_format)
    if header.nb_snapshots:
        from pydiskimg.cli.snapshot import snapshot_facts

        facts["snapshots"] = snapshot_facts(file, header)
    facts["format-specific"] = {"type": "qcow2", "data": _format_data(file, header)}
    return facts


def _format_data(file: Source, header: Header) -> Facts:
    data: Facts = {"compat": "1.1" if header.version == 3 else "0.10", "compression-type": header.compression_type}
    if header.version == 3:
        data["lazy-refcounts"] = header.lazy_refcounts
    if header.has_bitmaps:
        from pydiskimg.images.qcow2.bitmaps import read_bitmaps

        if bitmaps := read_bitmaps(file, header):
            data["bitmaps"] = ({"flags": b.flags, "name": b.name, "granularity": b.granularity} for b in bitmaps)
    data["refcount-bits"] = header.refcount_bits
    if header.has_data_file:
        if header.data_file:
            data["data-file"] = os.fsdecode(header.data_file)
        data["data-file-raw"] = header.data_file_raw
    if header.crypt_method != layout.CRYPT_NONE:
        from pydiskimg.cli.encryption import encryption_facts

        data["encrypt"] = encryption_facts(file, header)
    if header.version == 3:
        data["corrupt"] = header.corrupt
        data["extended-l2"] = header.extended_l2
    return data
