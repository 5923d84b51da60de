# SPDX-License-Identifier: MIT
"""Each network system's files, written for the instance's NICs: one module for one system."""
