# SPDX-License-Identifier: MIT
"""The guest's network: the wanted configuration of each NIC, and each distribution's files for it."""
