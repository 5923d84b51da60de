# SPDX-License-Identifier: MIT
"""One thin typed function for each system call or ioctl that Python does not offer itself."""
