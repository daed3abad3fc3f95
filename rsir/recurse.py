"""``python -m rsir.recurse``: the same as ``rsir run``."""

import sys

from rsir.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
