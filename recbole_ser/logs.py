"""Sending log messages to the console and, without colours, to the run's ``log.txt``."""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _PlainFormatter(logging.Formatter):
    """Removes the terminal colours that RecBole puts into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _COLOUR.sub("", super().format(record))


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@contextmanager
def lines_logged() -> Iterator[list[tuple[int, str]]]:
    """The messages that the root logger gets inside this block, each with its level, in a list that grows meanwhile."""
    logger, handler = logging.getLogger(), _Lines()
    handler.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


@contextmanager
def log_to(file: str | Path | None, level: str = "INFO") -> Iterator[Callable[[str | Path], None]]:
    """Inside this block the root logger, which is RecBole's, writes to the console and appends to ``file``, if any.

    Earlier handlers are silent inside the block and are restored after it.

    Yields:
        A function that gives the block a file which could not be made before; all messages so far are in it too.
    """
    logger = logging.getLogger()
    handlers, before_level = logger.handlers[:], logger.level
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter((logging.Formatter if sys.stderr.isatty() else _PlainFormatter)("%(message)s"))
    kept = logging.handlers.MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize, flushOnClose=False)

    def write_to(path: str | Path) -> None:
        to_file = logging.FileHandler(path, mode="a", encoding="utf-8")
        to_file.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
        kept.setTarget(to_file)
        kept.flush()
        logger.handlers = [console, to_file]

    logger.handlers = [console, kept]
    logger.setLevel(level.upper())
    try:
        if file is not None:
            write_to(file)
        yield write_to
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = handlers
        logger.setLevel(before_level)
