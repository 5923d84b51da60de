# SPDX-License-Identifier: MIT
"""Find and change things inside an installed system, always through the Tree protocol."""
