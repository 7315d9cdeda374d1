"""Train and evaluate a model: the same as ``recbole-ser run``."""

import sys

from recbole_ser.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
