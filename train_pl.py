"""Train a variational autoencoder on 4-bit MNIST: python train_pl.py --progress_bar

Reading order: utils.py (the maths), cnn_encoder_decoder.py (the networks), vae.py (the model), this
file (its training), fmnist.py (the data).
"""

import sys

if __name__ == "__main__" and sys.stdout.isatty():
    print("loading torch and Lightning ...", flush=True)  # seconds in which nothing would be said

import argparse
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import nn

from fmnist import DATA_DIR, DATASETS
from inputs.command_line import (
    InputError,
    OneLineParser,
    given_options,
    path_name,
    positive_number,
    run_main,
    share,
    whole_number,
)
from judging.report import beta_note, codec_bpd, of_test
from judging.samples import classifier_of, judge_run
from judging.size import sizes
from pictures.epochs import KeepEpochs
from pictures.in_training import GenerateCallback, LossCurves, show_latents
from pictures.progress import Progress
from reading.choice import OwnDataModule, add_own_data, data_module
from runs.from_checkpoint import add_model, built, maker_of
from runs.logs import open_logs, print_once
from runs.result import finish, test_best
from runs.run import Run
from runs.stopping import StopOnSignal, explain_end
from runs.trainer import add_trainer_options, compile_networks, make_trainer, restored_process
from vae import PRETRAINED, VAE, load_model, try_out

__all__ = ["PRETRAINED", "VAE", "GenerateCallback", "load_model", "main", "train_vae"]

# Options that are arguments of VAE.
OF_MODEL = ("num_filters", "z_dim", "lr", "beta", "beta_warmup")


def train_vae(
    args: argparse.Namespace,
    callbacks: Callback | Iterable[Callback] = (),
    logger: Logger | Iterable[Logger] | None = None,
    model: VAE | Callable[..., VAE] = VAE,
    data: pl.LightningDataModule | None = None,
) -> list[dict[str, float]]:
    """Trains, tests the best checkpoint, leaves pictures and logs, and returns the test result.

    With `args.resume` it continues a run, with that run's options; given more epochs than the run
    had, learning rate and moved images are from there on those of a run of the new length.

    Args:
        args: any namespace; a field that it lacks takes the command line's default.
        callbacks: one or more of Lightning's callbacks. A resumed run needs the same again.
        logger: one or several of Lightning's in place of TensorBoard's. They get all metrics and
            options; pictures are for TensorBoard. The run's folder is the same with any.
        model: the class, or a function that makes a VAE. It is called when the seed is set, with
            those of args.num_filters, z_dim, lr, beta and beta_warmup that are given, and the
            images' num_classes and num_levels, as far as it has arguments of these names. An object
            can be given too; then the seed does not cover its weights, as result.json says. A
            resumed run needs the same again.
        data: in place of the images that args name: an `ImagesDataModule` of fmnist.py, or any that
            has its `classes`, `num_levels` and, after setup, `train`, `val` and `test`.
    Returns:
        Lightning's test result: a list of one dict with test_bpd and its parts.
    Raises:
        InputError: an option, model, data files, the log directory or the run to resume cannot be
            used.
        FloatingPointError: the loss is no longer a finite number.
        WorkError: the log directory can no longer be written, or another process has ended.
    """
    of_model = {name: model.hparams[name] for name in OF_MODEL} if isinstance(model, VAE) else {}
    options, given = vars(args) | of_model, model
    callbacks = [callbacks] if isinstance(callbacks, Callback) else [*callbacks]
    with restored_process(), ExitStack() as held:
        run = Run(make_parser(), options, held)
        s = run.settings
        pl.seed_everything(s.seed, verbose=False)
        if of_model or data is not None or callbacks or logger is not None:
            run.maker = None
        elif given is not VAE:
            run.maker = maker_of(given)
        data = data_module(s, data)
        if isinstance(data, OwnDataModule):
            print_once(f"{s.data}: {data.said}")
        model = model_for(run, given, options, data)
        classifier = classifier_of(data)  # now, as a bad file ends the program
        stop, kept = StopOnSignal(), [KeepEpochs()] if s.keep_epochs else []
        shown = [GenerateCallback(save_to_disk=True), LossCurves(), Progress(s.progress_bar)]
        trainer = make_trainer(run, "val_bpd", [stop, *callbacks, *shown, *kept])
        if s.compile:
            compile_networks(trainer.strategy.root_device, model.encoder, model.decoder)
        if trainer.is_global_zero:
            data.prepare_data()  # before other processes start, which would wait for a failed one
        run.begin(trainer.world_size, model, data, seeded=given is not model)
        try:
            stop.catch()
            open_logs(run, trainer, logger)
            model.trained_in = str(run.folder)
            path = run.last if run.state.step else None
            trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
            test = test_best(run, trainer, model, data)
            result = {**test, **show_latents(trainer, model, data.test), **sizes(model)}
            if classifier is not None and trainer.is_global_zero:
                result["samples"] = judge_run(model, classifier, data.train, data.test, s.seed)
            result["codec_bpd"] = codec_bpd(data.test.images)
            if note := beta_note(s.beta):
                result["note"] = note
            finish(run, trainer, model, result, of_test(result))
        except BaseException as error:
            explain_end(run, error, stop.number)
            raise
    return [test]


def model_for(
    run: Run, given: VAE | Callable[..., VAE], options: Mapping[str, object], data: object
) -> VAE:
    """The model of a run: the object itself, or what a class or function makes; see `train_vae`.

    The run's options become those of the model.
    """
    images = {"num_classes": max(1, len(data.classes)), "num_levels": data.num_levels}
    model, continued = given, run.resumed and run.state.step > 0
    makes_one = callable(given) and not isinstance(given, nn.Module)
    if isinstance(given, type):
        makes_one = issubclass(given, VAE)
    if makes_one:
        sizes = {name: getattr(run.settings, name) for name in OF_MODEL if name in options}
        model = built(given, {**(run.state.hparams if run.resumed else sizes), **images})
    if not isinstance(model, VAE):
        raise InputError(f"model: give a VAE or what makes one, not {model!r:.80}")
    if hasattr(model, "trained_in") and not continued:
        raise InputError(f"model: it was trained in {model.trained_in}: give its class or another")
    for name, value in images.items():
        if model.hparams[name] != value:
            raise InputError(f"model: the images need VAE({name}={value}, ...)")
    for name in OF_MODEL:
        if name in options and getattr(run.settings, name) != model.hparams[name]:
            own = f"the model has {model.hparams[name]} and does not take it: leave it out"
            raise InputError(f"argument --{name}: {own}")
        setattr(run.settings, name, model.hparams[name])
    try_out(model)
    return model


def make_parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe whose results the README reports."""
    parser = OneLineParser(
        description="Train a variational autoencoder on 4-bit MNIST.",
        example="python train_pl.py --epochs 20 --seed 1 --progress_bar",
    )
    add = parser.add_argument
    add("--z_dim", type=whole_number(1), default=32, help="number of latent dimensions")
    add("--num_filters", type=whole_number(1), default=32, help="width of both networks")
    add("--lr", type=positive_number, default=2.2e-3, help="peak learning rate")
    add("--beta", type=positive_number, default=1.0, help="weight of the KL in the training loss")
    help = "share of the training steps in which beta rises from 0"
    add("--beta_warmup", type=share, default=0.0, help=help)
    add("--batch_size", type=whole_number(1), default=32, help="images per step and process")
    add("--data_dir", type=path_name, default=str(DATA_DIR), help="folder of the data files")
    add(
        "--dataset",
        choices=DATASETS,
        default="MNIST",
        help="data set, one of those in MNIST's file format",
    )
    add_own_data(add, "--data")
    bits = "bits of a pixel: 4, 16 grey levels; 1, two levels, drawn anew in every epoch"
    add("--bits", type=int, choices=(1, 4), default=4, help=bits)
    add("--epochs", type=whole_number(1), default=8, help="passes over the training images")
    seed = whole_number(0, 2**32 - 1)
    add("--seed", type=seed, default=42, help="number that all random draws derive from")
    add("--num_workers", type=whole_number(0, 64), default=0, help="loader processes; 0 is fastest")
    add(
        "--log_dir",
        type=path_name,
        default="VAE_logs",
        help="folder for logs, pictures and checkpoints",
    )
    add("--progress_bar", action="store_true", help="a progress bar below the line per epoch")
    add("--keep_epochs", action="store_true", help="keep every epoch's networks, for explore.py")
    add("--compile", action="store_true", help="torch.compile the networks: pays on long runs")
    add(
        "--resume",
        type=path_name,
        nargs="?",
        const=True,
        default=False,
        metavar="RUN",
        help="continue this run (a folder or its checkpoint), or the newest unfinished one",
    )
    add_trainer_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    add_model(parser)

    def work(_: argparse.Namespace) -> None:
        given = given_options(parser, argv)
        train_vae(model=given.pop("model", VAE), args=argparse.Namespace(**given))

    run_main(parser, work, argv)


if __name__ == "__main__":
    main()
