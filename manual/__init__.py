# SPDX-License-Identifier: MIT
"""Man pages and completion, written from the declarations that --help is printed from; building alone needs this."""
