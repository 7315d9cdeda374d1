"""Using a model in a folder that somebody else wrote, by Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_ser.errors import UserError, one_line


@contextmanager
def in_model_folder(folder: Path) -> Iterator[None]:
    """Turn every error of loading or running the model in ``folder`` into a UserError of one line.

    Raises:
        UserError: transformers is not installed, or something in the folder is missing, damaged, or does not fit the
            rest.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f'models in folders need transformers: pip install "recbole_ser[llm]" ({error})') from error
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what the libraries raise at wrong files is of any type
        problem = one_line(str(error)) or type(error).__name__
        raise UserError(f"{folder}: the model cannot be used: {problem}") from error
