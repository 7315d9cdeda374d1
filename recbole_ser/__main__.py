"""``python -m recbole_ser``: the same as ``recbole-ser``."""

import sys

from recbole_ser.cli import main

if __name__ == "__main__":
    sys.exit(main())
