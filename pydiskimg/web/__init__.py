# SPDX-License-Identifier: MIT
"""Files on servers, requested over HTTP or HTTPS by the standard library; imported only where an address is given."""
