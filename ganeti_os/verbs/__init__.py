# SPDX-License-Identifier: MIT
"""The verbs of a Ganeti OS definition; one module for each."""
