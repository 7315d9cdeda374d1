"""Sending log messages to the console and, without colours, to the run's ``log.txt``."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _PlainFormatter(logging.Formatter):
    """Removes the terminal colours that RecBole puts into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _COLOUR.sub("", super().format(record))


@contextmanager
def log_to(file: str | Path | None, level: str = "INFO") -> Iterator[None]:
    """Inside this block the root logger, which is RecBole's, writes to the console and appends to ``file``, if any.

    Earlier handlers are silent inside the block and are restored after it.
    """
    logger = logging.getLogger()
    handlers, before_level = logger.handlers[:], logger.level
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter((logging.Formatter if sys.stderr.isatty() else _PlainFormatter)("%(message)s"))
    logger.handlers = [console]
    if file is not None:
        to_file = logging.FileHandler(file, mode="a", encoding="utf-8")
        to_file.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(to_file)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = handlers
        logger.setLevel(before_level)
