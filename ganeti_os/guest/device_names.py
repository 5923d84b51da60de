# SPDX-License-Identifier: MIT
"""Match the first field of an fstab line with a volume: a tag, a link below /dev/disk, or a partition's device."""

from __future__ import annotations

import re

from pydiskimg.fs.probe.kind import label_text
from pydiskimg.volumes.find import Volume

_PARTITION = re.compile(r"(/dev/(?:[a-z]+|nvme[0-9]+n[0-9]+p|mmcblk[0-9]+p))([0-9]{1,3})")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")  # fstab(5): \040 is a blank
_HEX = re.compile(rb"\\x([0-9a-f]{2})", re.IGNORECASE)  # udev's links: \x20 is a blank
_TAGS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")
_LINKS = {f"/dev/disk/by-{tag.lower()}": tag for tag in _TAGS}


def names_volume(spec: str, volume: Volume, *, root_spec: str) -> bool:
    """True if spec, in the form of fstab, names the volume.

    root_spec is that of the root file system, which is on the volume's disk: /dev/vdb1 is not a partition of a disk
    whose root is /dev/vda2. Names that only a running system knows (by-id, by-path, /dev/mapper) never match.
    """
    directory, _, link = spec.rpartition("/")
    tag, is_tag, value = spec.partition("=")
    if is_tag and tag in _TAGS:
        return _has(volume, tag, _unescaped(_OCTAL, value.strip('"'), 8))
    if directory in _LINKS:
        return _has(volume, _LINKS[directory], _unescaped(_HEX, link, 16))
    match, root = _PARTITION.fullmatch(spec), _PARTITION.fullmatch(root_spec)
    if match is None or (root is not None and root.group(1) != match.group(1)):  # on another disk than the root
        return False
    return int(match.group(2)) == volume.partition.number


def _has(volume: Volume, tag: str, value: bytes) -> bool:
    wanted = label_text(value)  # in the form of probe(), so that bytes which are not text are compared, too
    found = _tag_value(volume, tag)
    if not wanted or not found:
        return False
    return wanted == found if tag.endswith("LABEL") else wanted.lower() == found.lower()


def _tag_value(volume: Volume, tag: str) -> str | None:
    match tag:
        case "UUID":
            return volume.content.uuid if volume.content else None
        case "LABEL":
            return volume.content.label if volume.content else None
        case "PARTUUID":
            return volume.partition.uuid
        case _:
            return label_text(volume.partition.name.encode("utf-8"))


def _unescaped(escape: re.Pattern[bytes], text: str, base: int) -> bytes:
    return escape.sub(lambda match: bytes((int(match.group(1), base),)), text.encode("utf-8", "surrogateescape"))
