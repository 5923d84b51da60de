# SPDX-License-Identifier: MIT
"""Repairing a qcow2 file: what can be computed from the tables that say what its disk holds is computed again."""
