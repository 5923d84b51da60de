# SPDX-License-Identifier: MIT
"""Changes of a whole qcow2 image (its snapshots, its size) that take effect by one write of the header."""
