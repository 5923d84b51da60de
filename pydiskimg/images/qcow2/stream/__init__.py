# SPDX-License-Identifier: MIT
"""qcow2 front to back, through pipes."""
