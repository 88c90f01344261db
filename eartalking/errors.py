"""The one error that users cause, and that every entry point prints as a single line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import NoReturn


class InputError(ValueError):
    """A file that cannot be used, and why.

    `str(error)` is one printable line, `path: cause`, whatever the file is called: line breaks, control
    characters and undecodable bytes in the name come out escaped.

    Attributes:
        path: the file as the user named it.
        cause: what is wrong with it and, where it helps, what to do.
    """

    def __init__(self, path: str | PathLike[str], cause: str) -> None:
        self.path = str(fspath(path))
        self.cause = cause
        super().__init__(f"{printable(self.path)}: {printable(cause)}")


def printable(text: str) -> str:
    """`text` with everything escaped that would break the line or the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def os_cause(error: BaseException) -> str:
    """The short cause in an `OSError` (`No space left on device`), or the error's own first line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]


def check_file(path: str | PathLike[str]) -> None:
    """Whether a file can be read as often as it takes: a pipe, such as a shell's `<(...)`, cannot.

    Raises:
        InputError: missing, a folder, another thing that is no plain file, or empty.
    """
    try:
        source = Path(path)
        if not source.is_file():
            cause = "is a folder" if source.is_dir() else "is not a plain file"
            raise InputError(path, cause if source.exists() else "no such file")
        with open(source, "rb") as file:
            if not file.read(1):
                raise InputError(path, "the file is empty")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(path, os_cause(error)) from None


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main` and exit with the status that it returns; input that cannot be used ends it with one line
    on stderr and status 2, Ctrl-C with status 130."""
    try:
        status = main()
    except (InputError, FileNotFoundError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    raise SystemExit(status)
