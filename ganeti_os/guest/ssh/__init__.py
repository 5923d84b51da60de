# SPDX-License-Identifier: MIT
"""The guest's ssh servers: their configuration, and host keys of the instance's own."""
