"""What the commands have in common: their options, and bad input that ends with one line."""

import argparse
import io
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says why and what helps."""


class WorkError(Exception):
    """The work cannot be finished, by no fault of the input; the message is one line."""


def run_main(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], object],
    argv: Sequence[str] | None = None,
) -> None:
    """Reads a command's options, does its work, and ends the program as all commands do.

    `work` gets the options; it writes its results before it prints them.
    Every end is one line. The exit code is 2 for bad input, also for values that are not finite
    (FloatingPointError); 1 for a `WorkError`, a full disk, an output that nobody reads and too
    little memory; 130 for Ctrl-C. What the output's encoding cannot show becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        work(parser.parse_args(argv))
        print(end="", flush=True)  # while an error can still be told
    except WorkError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except (InputError, FloatingPointError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except (MemoryError, RuntimeError) as error:
        known = ("out of memory", "can't allocate memory")  # torch's words, of no one type
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in known):
            raise
        parser.exit(1, f"{parser.prog}: not enough memory for these sizes ({one_line(error)})\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped\n")
    except OSError as error:
        what = f"{error.filename or 'output'}: {error.strerror}" if error.strerror else str(error)
        if isinstance(error, BrokenPipeError):
            what = "nobody reads the output any more"
        parser.exit(1, f"{parser.prog}: {what}\n")
    finally:
        _drop_output()


def _drop_output() -> None:
    """Forgets what cannot be printed; Python would try it again at its end, with a traceback."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: object) -> str:
    """What an exception says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that say something: not None, and not that a switch is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or isinstance(action.default, bool)
        return action.help if silent else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """Raises InputError, a line without the usage above it, where argparse would exit.

    Args:
        description: what the command does.
        example: a command line to copy.
    """

    def __init__(self, description: str = "", example: str = "", **how: object):
        how = {"formatter_class": Help, "epilog": f"Example: {example}" if example else None, **how}
        super().__init__(description=description, **how)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def number(kind: type, fits: Callable[[float], bool], hint: str) -> Callable[[str], float]:
    """An argparse type: an int or a float that fits; the hint says which do."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if fits(kind(text)):
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r}: give {hint}")

    return parse


def whole_number(minimum: int, maximum: int = 10**9) -> Callable[[str], int]:
    """An argparse type: a whole number in these bounds."""
    hint = f"a whole number of at least {minimum} and at most {maximum}"
    return number(int, lambda n: minimum <= n <= maximum, hint)


positive_number = number(float, lambda x: 0 < x < math.inf, "a number above 0, such as 0.003")
share = number(float, lambda x: 0 <= x <= 1, "a number from 0 to 1, such as 0.1")


def path_name(text: str) -> str:
    """An argparse type: a file or folder; an empty name would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("'': give the name of a file or folder")
    return text


def given_options(parser: argparse.ArgumentParser, argv: list[str] | None) -> dict[str, object]:
    """The options that stand on the command line, without those that take their defaults."""
    names = vars(parser.parse_args([]))
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names)))
    return {name: value for name, value in vars(args).items() if value is not None}


def to_argv(options: Mapping[str, object]) -> list[str]:
    """The command line that gives these options; a caller's NumPy float or Path becomes text."""
    argv = []
    for name, value in options.items():
        if value is True:
            argv.append(f"--{name}")
        elif isinstance(value, list | tuple):  # a comma after each: one device, not so many
            argv.append(f"--{name}={''.join(f'{item},' for item in value)}")
        elif value is not False and value is not None:
            argv.append(f"--{name}={value}")
    return argv


def nearest_folder(path: str | Path) -> Path:
    """The path itself or the nearest parent of it that is there, if only as a broken link."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def check_output(option: str, file: Path, ours: bytes = b"") -> bool:
    """Whether there is a file already, which a new one will replace.

    Raises InputError if there is something else, or a file that does not contain `ours`.
    """
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise InputError(
            f"argument {option}: {file} is a folder, a link or a device: choose another name"
        )
    check_writable(option, file.parent)
    if file.exists() and ours not in file.read_bytes():
        raise InputError(f"argument {option}: {file} is a file of yours: choose another name")
    return file.exists()


def check_writable(option: str, folder: str | Path) -> None:
    """Raises InputError unless files can be made in the folder or, so far, where it would be."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            pass
    except OSError as error:
        raise InputError(
            f"argument {option}: {folder} cannot be written ({error.strerror}): choose another"
        ) from error
