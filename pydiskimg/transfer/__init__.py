# SPDX-License-Identifier: MIT
"""Move bytes from a Source to a Disk or a pipe: copy, compare, send and receive."""
