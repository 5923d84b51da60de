# SPDX-License-Identifier: MIT
"""The firmware that a disk is for: whether a BIOS can boot it, and whether it contains variables of UEFI."""

from __future__ import annotations

import logging

from ganeti_os.request import Request
from pydiskimg.errors import PartitionError
from pydiskimg.partitions.layout import MBR
from pydiskimg.partitions.partition import SECTOR_SIZES
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.records import Record

log = logging.getLogger(__name__)

_EFI_SYSTEM = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
# UEFI PI 1.8, volume 3; little-endian.
_VOLUME = Record("EFI_FIRMWARE_VOLUME_HEADER", "<", 44, """
    00 16s ZeroVector
    10 16s FileSystemGuid
    20 Q   FvLength
    28 4s  Signature
""")  # fmt: skip
_VOLUME_SIGNATURE = b"_FVH"
_VARIABLES_LIMIT = 64 << 20  # OVMF's are of 128 KiB to 4 MiB, AAVMF's of 64 MiB
_KVM_ARGUMENTS = ("pflash", "ovmf", "aavmf", "edk2", "-bios")  # in the hypervisor parameter kvm_extra


def holds_firmware_variables(disk: Source) -> bool:
    """True if the disk begins with a firmware volume: the variables that a guest's UEFI keeps between boots."""
    if disk.size < _VOLUME.size:
        return False
    header = _VOLUME.unpack(read_bytes(disk, 0, _VOLUME.size))
    is_volume = header["Signature"] == _VOLUME_SIGNATURE and not any(header["ZeroVector"])
    return is_volume and 0 < header["FvLength"] <= min(disk.size, _VARIABLES_LIMIT)


def boots_by_uefi_only(disk: Source) -> bool:
    """True if the disk has an EFI system partition, and nothing that a BIOS could start.

    That is boot code in the first sector, or in a GPT a partition for a boot loader.
    """
    code = read_bytes(disk, 0, min(MBR.slice_of("BootCode").stop, disk.size))
    for sector_size in SECTOR_SIZES:
        try:
            types = {partition.type.lower() for partition in read_partition_table(disk, sector_size=sector_size)}
        except PartitionError:
            continue
        if not types.isdisjoint(_EFI_SYSTEM):
            return _BIOS_BOOT not in types and not any(code)
    return False


def tell_of_uefi(disk: Source, request: Request) -> None:
    """Warn if the disk can be booted by UEFI only, and the instance's hypervisor would start a BIOS."""
    extra = request.environment.get("INSTANCE_HV_kvm_extra", "").lower()
    if request.hypervisor != "kvm" or not request.kernel_inside or any(word in extra for word in _KVM_ARGUMENTS):
        return
    if boots_by_uefi_only(disk):
        log.warning(
            "%s: the image boots by UEFI only (it has an EFI system partition and no boot loader for a BIOS), and "
            "Ganeti's KVM starts a BIOS; use an image that has both, or give the instance firmware by the hypervisor "
            "parameter kvm_extra",
            disk.name,
        )
