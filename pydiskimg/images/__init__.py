# SPDX-License-Identifier: MIT
"""The bytes of image formats: each module turns a file into a Source."""
