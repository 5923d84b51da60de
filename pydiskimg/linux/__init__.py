# SPDX-License-Identifier: MIT
"""One thin typed function for each system call or ioctl that Python itself does not offer."""
