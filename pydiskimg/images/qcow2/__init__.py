# SPDX-License-Identifier: MIT
"""The qcow2 image format, versions 2 and 3 (QEMU docs/interop/qcow2)."""
