# SPDX-License-Identifier: MIT
"""The guest's network: what each NIC is to have, and each distribution's files for it, read, changed and written."""
