# SPDX-License-Identifier: MIT
"""python -m pydiskimg"""

from pydiskimg.cli import launch

launch()
