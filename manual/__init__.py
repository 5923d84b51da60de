# SPDX-License-Identifier: MIT
"""Man pages and completion, from the same declarations as --help; only building needs this package."""
