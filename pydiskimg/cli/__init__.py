# SPDX-License-Identifier: MIT
"""The `pydiskimg` command."""
