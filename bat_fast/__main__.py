"""``python -m bat_fast``."""

import sys

from bat_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
