# SPDX-License-Identifier: MIT
"""The Ganeti OS definition `image`: create, import, export, rename and verify, over pydiskimg."""
