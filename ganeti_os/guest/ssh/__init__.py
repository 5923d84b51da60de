# SPDX-License-Identifier: MIT
"""The guest's ssh servers: their configuration, and the instance's own host keys."""
