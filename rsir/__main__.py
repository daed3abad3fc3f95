"""``python -m rsir``: the same as ``rsir``."""

import sys

from rsir.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
