# SPDX-License-Identifier: MIT
"""Repair a qcow2 file: values that can be computed from the tables of its disk are computed again."""
