# SPDX-License-Identifier: MIT
"""What Ganeti asks an OS definition to do; one module a verb."""
