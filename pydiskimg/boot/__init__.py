# SPDX-License-Identifier: MIT
"""Boot loaders as bytes: GRUB 2 for PCs with a BIOS, built from the files of the guest's own package.

A BIOS loads the first sector (boot_sector.py), which loads the core image (core_image.py) from outside of any file
system (core_area.py). The core image finds the guest's file system and reads grub.cfg and further modules from it
(files.py).
"""

from pydiskimg.boot.core_area import CoreArea, check_core_area, find_core_area
from pydiskimg.boot.core_image import CoreImage, make_core
from pydiskimg.boot.files import Dress, Grub, copy_modules, grub_home, read_grub
from pydiskimg.boot.install import install_core, write_boot_loader

__all__ = [
    "CoreArea",
    "CoreImage",
    "Dress",
    "Grub",
    "check_core_area",
    "copy_modules",
    "find_core_area",
    "grub_home",
    "install_core",
    "make_core",
    "read_grub",
    "write_boot_loader",
]
