"""One HTML page to play with models, which are inside it: python explore.py [CHECKPOINT ...]

It needs no server and no network. Its parts are in page/.
"""

import argparse
from pathlib import Path

from fmnist import DIGITS
from inputs.command_line import InputError, OneLineParser, check_output, path_name, run_main
from inputs.files import write_whole
from page.contents import Shown, contents, page
from pictures.epochs import kept_epochs
from reading.choice import add_data_options, data_for, training_record
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import add_model
from vae import PRETRAINED, check_logits, load_model

PLANE = PRETRAINED.parent / "plane"  # a run with --z_dim 2 --num_filters 12 --seed 0 --keep_epochs


def explore(args: argparse.Namespace) -> None:
    """Writes the page of one or several models, and says how to open it."""
    output = Path(args.output)
    if output.suffix != ".html":
        raise InputError(f"argument --output: {output}: give a file whose name ends in .html")
    replaced = check_output("--output", output, b'<script id="model"')
    files = [find_checkpoint(given) for given in args.checkpoint]
    trained = {}  # the digest decides: files of one name may have other images
    for record in map(training_record, files):
        name = record.get("dataset", "MNIST")
        trained[record.get("digest", name)] = record.get("data", name)
    if len(trained) > 1:
        names = " and ".join(sorted(trained.values()))
        raise InputError(f"argument checkpoint: models of {names}: make a page of each data set")
    if len({training_record(file).get("bits", 4) for file in files}) > 1:
        raise InputError("argument checkpoint: models of 2 and of 16 grey levels: make a page each")
    sets = data_for(files[0], args.dataset, args.data, args.data_dir)
    found, known = list(sets.test.classes), training_record(files[0]).get("classes", [*DIGITS])
    if found != known:  # the page would call the model's classes by other names
        found, known = (", ".join(names) or "none" for names in (found, known))
        option = "--data" if args.data else "--dataset"
        raise InputError(
            f"argument {option}: classes {found}, expected those of the model, {known}"
        )
    models, names = [], [file.name for file in files]
    for given, file in zip(args.checkpoint, files, strict=True):
        model = load_model(file, args.model)
        check_logits(model, "pages")
        if (count := model.prior.num_classes) != max(1, len(sets.test.classes)):
            images = f"{sets.name} has {len(sets.test.classes)}: give --data with those it knows"
            raise InputError(f"argument checkpoint: {file} knows {count} classes, {images}")
        name = file.name if names.count(file.name) == 1 else str(given)
        models.append(Shown(name, model, kept_epochs(Path(given), model)))
    html = page(contents(models, sets)).encode()
    write_whole(output, html)
    again = ", in place of the page that was there" if replaced else ""
    print(f"{output}: {len(html) / 1e6:.1f} MB, for any browser{again}. Double-click it, or open")
    print(output.absolute().as_uri())


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Write one HTML page to play with a model in: latents, new digits, own digits.",
        example="python explore.py VAE_logs/version_0 --output digits.html",
    )
    add = parser.add_argument
    help = "a .ckpt file or a run's log directory; of a directory also the epochs that it kept"
    default = [str(PRETRAINED), str(PLANE)]
    add("checkpoint", nargs="*", type=path_name, default=default, help=help)
    add_model(parser)
    add("--output", type=path_name, default="explore.html", help="file for the page")
    add_data_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), explore, argv)


if __name__ == "__main__":
    main()
