# SPDX-License-Identifier: MIT
"""Each network program's files, written for the instance's NICs: one module for each program."""
