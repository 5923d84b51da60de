# SPDX-License-Identifier: MIT
"""Changes of a whole qcow2 image (its snapshots, its size) that one write of the header makes at once."""
