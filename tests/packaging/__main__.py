# SPDX-License-Identifier: MIT
"""make packages-check: what is built from the checkout is installed in fresh Debian 12 and 13, and works there.

The Debian packages are built twice, which must give equal files, judged by lintian, and installed on a node without a
compiler: over nothing, over an earlier version, in the place of ganeti-instance-image; Ganeti itself then adds, backs
up and removes an instance. The source distribution and the wheel are installed by pip as README says.
"""

from __future__ import annotations

import sys
import time

from tests.packaging import debian, python
from tests.packaging.root import CHECKOUT

WORK = CHECKOUT / ".packaging"
SUITES = ("bookworm", "trixie")


def main() -> None:
    """Check the suites that are named, or both."""
    suites = sys.argv[1:] or list(SUITES)
    unknown = set(suites) - set(SUITES)
    if unknown:
        sys.exit(f"there is no suite {', '.join(sorted(unknown))}; expected {' or '.join(SUITES)}")
    WORK.mkdir(exist_ok=True)
    distributions = python.build(WORK)
    for suite in suites:
        for check in (debian.check, lambda work, suite: python.check(work, suite, distributions)):
            started = time.monotonic()
            for line in check(WORK, suite):
                print(f"{suite} {time.monotonic() - started:5.0f} s  {line}", flush=True)
    print("packages: all checks passed")


if __name__ == "__main__":
    main()
