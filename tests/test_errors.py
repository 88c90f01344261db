"""What is wrong with an input is told in one line, whatever it is and whichever program meets it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eartalking.errors import InputError, check_file, run_program


@pytest.mark.parametrize(
    ("name", "cause"),
    [("missing", "no such file"), ("folder", "is a folder"), ("empty", "empty"), ("nu\0ll", "no such file")],
)
def test_what_is_no_file_to_read_is_told(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=cause):
        check_file(tmp_path / name)


def fails(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "told"),
    [
        (lambda: 0, 0, ""),
        (fails(InputError("a\nb", "damaged")), 2, "error: a\\nb: damaged\n"),
        (fails(FileNotFoundError("/nope: no clips here")), 2, "error: /nope: no clips here\n"),
        (fails(KeyboardInterrupt()), 130, "interrupted\n"),
    ],
)
def test_a_program_ends_in_one_line(
    main: Callable[[], int], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_program(main)
    assert stop.value.code == status and capsys.readouterr().err == told


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program(fails(ZeroDivisionError()))
