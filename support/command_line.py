"""What every command has in common: options, bad input in one line, folders that can be written."""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says why and what helps."""


def one_line(error: object) -> str:
    """What an exception says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def nearest_folder(path: str | Path) -> Path:
    """The path itself or the nearest parent of it that exists."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def check_writable(option: str, folder: str | Path) -> None:
    """Raises InputError unless files can be made in the folder or, so far, where it would be."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            pass
    except OSError as error:
        raise InputError(
            f"argument {option}: {folder} cannot be written ({error.strerror}): choose another"
        ) from error


def whole_number(minimum: int, maximum: float = math.inf) -> Callable[[str], int]:
    """An argparse type: a whole number in these bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not minimum <= value <= maximum:
            most = f" and at most {maximum}" if maximum < math.inf else ""
            raise argparse.ArgumentTypeError(
                f"{text}: give a whole number of at least {minimum}{most}"
            )
        return value

    return parse


def positive_number(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0, such as 0.003")
    return value


class OneLineParser(argparse.ArgumentParser):
    """Answers bad input with one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def given_options(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options that stand on the command line, without those that take their defaults."""
    names = vars(parser.parse_args([]))
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names)))
    return argparse.Namespace(**{k: v for k, v in vars(args).items() if v is not None})
