# SPDX-License-Identifier: MIT
"""Writing qcow2: new images, and changing any image in place."""
