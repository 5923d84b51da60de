# SPDX-License-Identifier: MIT
"""What is found and changed inside an installed system, always through the Tree protocol."""
