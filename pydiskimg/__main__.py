# SPDX-License-Identifier: MIT
"""python -m pydiskimg"""

import sys

from pydiskimg.cli import main

sys.exit(main())
