# SPDX-License-Identifier: MIT
"""A volume of a guest's disk, attached as a device and mounted."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pydiskimg.host.loop import LoopDevice, loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.protocols import ShownDisk
from pydiskimg.volumes.find import Volume


def volume_device(disk: ShownDisk, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[LoopDevice]:
    """Attach the volume as a device while the context lasts.

    It always has 512-byte sectors: its file system may have blocks smaller than the disk's sectors (docs/adr/0004).
    """
    partition = volume.partition
    return loop_device(disk.fd, offset=partition.start, length=partition.length, read_only=read_only)


def mounted_volume(
    disk: ShownDisk,
    device: str,
    volume: Volume,
    *,
    target: str | None = None,
    read_only: bool = False,
    programs: bool = False,
) -> AbstractContextManager[str]:
    """Mount the volume of the disk, attached as device, as mounted() does; its content is known."""
    assert volume.content is not None
    return mounted(
        device,
        fs_type=volume.content.type,
        target=target,
        read_only=read_only,
        programs=programs,
        options=volume.options,
        name=f"{disk.name}, {volume.location}",
    )
