# SPDX-License-Identifier: MIT
"""What a guest's own files say of how it boots: kernels, GRUB's menu and defaults, boot entries, serial consoles."""
