# SPDX-License-Identifier: MIT
"""Bytes from a Source to a Disk or a pipe: copied, compared, sent and received."""
