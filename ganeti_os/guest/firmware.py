# SPDX-License-Identifier: MIT
"""Which firmware a disk is for: whether a BIOS can boot it, and whether it holds what UEFI firmware keeps."""

from __future__ import annotations

import logging

from ganeti_os.request import Request
from pydiskimg.errors import PartitionError
from pydiskimg.partitions.read import MBR_DISK_SIGNATURE, SECTOR_SIZES, read_partition_table
from pydiskimg.protocols import Source, read_bytes

log = logging.getLogger(__name__)

_EFI_SYSTEM = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
# A firmware volume begins with 16 zero bytes, the GUID of its file system, its length and this (UEFI PI 1.8, volume 3).
_VOLUME_SIGNATURE = slice(40, 44), b"_FVH"
_VOLUME_LENGTH = slice(32, 40)
_VARIABLES_LIMIT = 64 << 20  # OVMF's are of 128 KiB to 4 MiB, AAVMF's of 64 MiB
_KVM_ARGUMENTS = ("pflash", "ovmf", "aavmf", "edk2", "-bios")  # in the hypervisor parameter kvm_extra


def holds_firmware_variables(disk: Source) -> bool:
    """Tell whether the disk begins with a firmware volume: the variables that a guest's UEFI keeps between starts."""
    at, signature = _VOLUME_SIGNATURE
    if disk.size < at.stop:
        return False
    header = read_bytes(disk, 0, at.stop)
    length = int.from_bytes(header[_VOLUME_LENGTH], "little")
    return header[at] == signature and not any(header[:16]) and 0 < length <= min(disk.size, _VARIABLES_LIMIT)


def boots_by_uefi_only(disk: Source) -> bool:
    """Tell whether the disk has an EFI system partition, and nothing that a BIOS could start.

    That is boot code in the first sector, or in a GPT a partition for a boot loader.
    """
    code = read_bytes(disk, 0, min(MBR_DISK_SIGNATURE.start, disk.size))
    for sector_size in SECTOR_SIZES:
        try:
            types = {partition.type.lower() for partition in read_partition_table(disk, sector_size=sector_size)}
        except PartitionError:
            continue
        if not types.isdisjoint(_EFI_SYSTEM):
            return _BIOS_BOOT not in types and not any(code)
    return False


def tell_of_uefi(disk: Source, request: Request) -> None:
    """Warn when the disk can be booted by UEFI only, and the instance's hypervisor would start a BIOS."""
    extra = request.environment.get("INSTANCE_HV_kvm_extra", "").lower()
    if request.hypervisor != "kvm" or not request.kernel_inside or any(word in extra for word in _KVM_ARGUMENTS):
        return
    if boots_by_uefi_only(disk):
        log.warning(
            "%s: the image boots by UEFI only (it has an EFI system partition and no boot loader for a BIOS), and "
            "Ganeti's KVM starts a BIOS; take an image that has both, or give the instance firmware by the hypervisor "
            "parameter kvm_extra",
            disk.name,
        )
