# SPDX-License-Identifier: MIT
"""qcow2 read and written in order, through pipes."""
