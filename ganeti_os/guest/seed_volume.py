# SPDX-License-Identifier: MIT
"""The seed of cloud-init on a small FAT volume labelled CIDATA, for systems whose root must not be written (ADR 0107).

cloud-init looks for the label, reads the seed at each boot, and prefers it to a seed in the root.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Sequence

from ganeti_os.guest.cloud_init import (
    META_DATA,
    NETWORK_CONFIG,
    NO_USER_DATA,
    USER_DATA,
    VENDOR_DATA,
    meta_data,
    read_user_data,
    renewed_seed,
)
from ganeti_os.guest.facts.instance import Facts, instance_facts
from ganeti_os.guest.network.cloud_config import network_config
from ganeti_os.request import Request
from ganeti_os.settings.authorized_keys import keys_of_settings
from ganeti_os.settings.settings import Settings
from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.fs.fat12 import make_fat12, read_fat12
from pydiskimg.fs.probe.kind import EXT_TYPES
from pydiskimg.partitions.gap_partition import GapPartition, NoGapError, plan_gap_partition
from pydiskimg.partitions.partition import Partition
from pydiskimg.protocols import ShownDisk
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from pydiskimg.volumes.find import find_volumes

log = logging.getLogger(__name__)

LABEL = "CIDATA"
_NAME = "cidata"
_SMALLEST = 64 << 10  # bytes
_LARGEST = 8 * MIB  # bytes of a volume of others that is brought up to date
_LINUX = frozenset({*EXT_TYPES, "xfs", "btrfs", "LVM2_member", "crypto_LUKS"})
_BASIC_DATA = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")  # what FAT and NTFS have


def seed_volume(disk: ShownDisk, facts: Facts, settings: Settings) -> bool:
    """Give a new instance its seed on a separate volume; False, after a warning, if the disk has no room for one.

    The start of the disk must be final: the volume goes into the gap before the first partition. An image's own volume
    with the label is used if there is one. Raises SettingsError or StorageError when the file in CLOUD_USER_DATA cannot
    be read, StorageError when a write fails.
    """
    files = _new_seed(facts, settings)
    try:
        found = _find(disk)
        if found is not None:
            _write(disk, found, files)
        else:
            planned = _plan(disk)
            _write(disk, planned.partition, files)
            planned.write(disk)
            found = planned.partition
    except (NoGapError, FileSystemError, PartitionError) as error:
        log.warning("cloud-init in the guest gets no seed with the instance's name and network: %s", error)
        return False
    log.info("%s, partition %d: the seed of cloud-init, label %s, was written", disk.name, found.number, LABEL)
    return True


def seed_in_front(disk: ShownDisk, request: Request, settings: Settings) -> None:
    """Give a new instance its seed on a volume if its root, which was not written, may be that of a Linux system."""
    try:
        found = find_volumes(disk)
    except PartitionError as error:
        log.debug("%s", error)  # the search for a root has logged it
        return
    if any(volume.content is not None and volume.content.type in _LINUX for volume in found):
        seed_volume(disk, instance_facts(request, settings, is_new=True), settings)


def renew_seed_volume(disk: ShownDisk, facts: Facts) -> bool:
    """Update the seed on a disk's volume, under its old instance-id unless the system is new.

    Return False if the disk has no such volume. An unreadable one is skipped, after a warning. Raises StorageError when
    a write fails.
    """
    try:
        found = _find(disk)
    except PartitionError as error:
        log.debug("%s", error)  # the search for the root reports it
        return False
    if found is None:
        return False
    try:
        old = read_fat12(_region(disk, found))
        new = renewed_seed(old, facts)
        if new != old:
            _write(disk, found, new)
            log.info("%s, partition %d: %s for cloud-init", disk.name, found.number, facts.name)
    except FileSystemError as error:
        log.warning("cloud-init in the guest may keep the old name and identity: %s", error)
    return True


def own_configuration(password_hash: str, authorized_keys: Sequence[str]) -> bytes:
    """Return vendor-data that lets cloud-init do what cannot be done in a root that is not written.

    It renders the network at each boot and writes /etc/hosts; user-data has precedence.
    """
    lines = [
        "#cloud-config",
        "manage_etc_hosts: true",
        "updates: {network: {when: [boot-new-instance, boot]}}",
    ]
    if authorized_keys:
        lines += ["disable_root: false", f"ssh_authorized_keys: {json.dumps(list(authorized_keys))}"]
    if password_hash:
        user = f"{{name: root, type: hash, password: {json.dumps(password_hash)}}}"
        lines.append(f"chpasswd: {{expire: false, users: [{user}]}}")
    return "\n".join(lines).encode() + b"\n"


def _new_seed(facts: Facts, settings: Settings) -> dict[str, bytes]:
    user_data = read_user_data(settings)
    files = {META_DATA: meta_data(facts), USER_DATA: NO_USER_DATA if user_data is None else user_data}
    if facts.nics:
        files[NETWORK_CONFIG] = network_config(facts.nics)
    own = own_configuration(settings.root_password_hash, keys_of_settings(settings))
    return {**files, VENDOR_DATA: own}


def _find(disk: ShownDisk) -> Partition | None:
    """Return the partition with the label; None if there is none that is small."""
    for volume in find_volumes(disk):
        content, partition = volume.content, volume.partition
        if content is None or content.type != "vfat" or (content.label or "").upper() != LABEL:
            continue
        if partition.number and partition.length <= _LARGEST:
            return partition
    return None


def _plan(disk: ShownDisk) -> GapPartition:
    return plan_gap_partition(
        disk,
        disk.sector_size,
        type_guid=_BASIC_DATA,
        identifier=uuid.uuid4(),
        name=_NAME,
        smallest=_SMALLEST,
        largest=MIB,
    )


def _write(disk: ShownDisk, partition: Partition, files: dict[str, bytes]) -> None:
    volume = make_fat12(
        partition.length,
        files,
        label=LABEL,
        serial=zlib.crc32(files[META_DATA]),
        sector_size=disk.sector_size,
        hidden_sectors=partition.start // disk.sector_size,
    )
    _region(disk, partition).write(0, volume)
    disk.flush()


def _region(disk: ShownDisk, partition: Partition) -> Region:
    return Region(disk, partition.start, partition.length, name=f"{disk.name}, partition {partition.number}")
