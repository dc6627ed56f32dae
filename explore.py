"""One HTML page to play with a model in, with the model inside: python explore.py [CHECKPOINT]

The page needs no server and no network; what is in it stands in page/.
"""

import argparse
import signal
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C in the seconds of the imports ends without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from boundary.checkpoints import find_checkpoint
from boundary.command_line import (
    InputError,
    OneLineParser,
    add_checkpoint,
    path_name,
    run_main,
)
from boundary.files import write_whole
from own_data import add_data_options, data_for
from page.contents import page
from train_pl import PRETRAINED, load_model


def explore(args: argparse.Namespace) -> Path:
    """Writes the page of a checkpoint, says how to open it, and returns its path.

    Raises:
        InputError: the checkpoint, the data or the output is unusable.
    """
    path, output = find_checkpoint(args.checkpoint), Path(args.output)
    model = load_model(path)
    if output.suffix != ".html":
        raise InputError(f"argument --output: {output}: give a file whose name ends in .html")
    sets = data_for(path, args.dataset, args.data, args.data_dir)
    html = page(model, sets.test, path.name, sets.name).encode()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, html)
    except OSError as error:
        raise InputError(
            f"argument --output: {output} cannot be written ({error.strerror}): choose another"
        ) from error
    print(f"{output}: {len(html) / 1e6:.1f} MB, for any browser. Double-click it, or open")
    print(output.absolute().as_uri())
    return output


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Write one HTML page to play with a model in: latents, new digits, own digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_checkpoint(parser, PRETRAINED)
    add("--output", type=path_name, default="explore.html", help="the page")
    add_data_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()
    run_main(parser, lambda: explore(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
