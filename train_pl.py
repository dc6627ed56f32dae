"""Train a variational autoencoder on 4-bit MNIST: python train_pl.py --progress_bar

Reading order: utils.py (the maths), cnn_encoder_decoder.py (the networks), vae.py (the model), this
file (its training), fmnist.py (the data).
"""

import argparse
from collections.abc import Iterable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

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
from judging.report import beta_note
from judging.samples import CLASSIFIED_DATASET, CLASSIFIER, judge_run, load_classifier
from judging.size import flops_per_image
from pictures.in_training import GenerateCallback, LossCurves, show_latents
from reading.choice import add_own_data, data_module
from runs.logs import open_logs, print_once
from runs.result import finish, test_best
from runs.run import open_run
from runs.stopping import explained_end, stop_on_signals, told_by_rank_zero
from runs.trainer import add_trainer_options, compile_networks, make_trainer, restored_process
from vae import PRETRAINED, VAE, load_model

__all__ = ["PRETRAINED", "VAE", "GenerateCallback", "load_model", "main", "train_vae"]

# Options that are arguments of VAE.
OF_MODEL = ("num_filters", "z_dim", "lr", "beta", "beta_warmup")


def train_vae(
    args: argparse.Namespace,
    callbacks: Callback | Iterable[Callback] = (),
    logger: Logger | Iterable[Logger] | None = None,
    model: VAE | None = None,
) -> list[dict[str, float]]:
    """Trains, tests the best checkpoint, leaves pictures and logs, and returns the test result.

    With `args.resume` it continues a run, with that run's options; given more epochs than the run
    had, learning rate and moved images are from there on those of a run of the new length.

    Args:
        args: any namespace; a field that it lacks takes the command line's default.
        callbacks: one or more of Lightning's callbacks. A resumed run needs the same again.
        logger: one or several of Lightning's in place of TensorBoard's. They get all metrics and
            options; pictures are for TensorBoard. The run's folder is the same with any.
        model: in place of `VAE(args.num_filters, args.z_dim, args.lr, args.beta)`: one with other
            networks, or of a subclass. The options that describe a model are those of its
            hyperparameters. A resumed run needs the same model again.
    Returns:
        Lightning's test result: a list of one dict with test_bpd and its parts.
    Raises:
        InputError: an option, data files, the log directory or the run to resume cannot be used.
        FloatingPointError: the loss is no longer a finite number.
        WorkError: the log directory can no longer be written, or another process has ended.
    """
    if not (model is None or isinstance(model, VAE)):
        raise InputError(f"model: give a VAE of train_pl.py or of a subclass, not {model!r:.80}")
    of_model = {} if model is None else {name: model.hparams[name] for name in OF_MODEL}
    options = vars(args) | of_model
    with restored_process(), stop_on_signals(), open_run(make_parser(), options) as run:
        s = run.settings
        pl.seed_everything(s.seed, verbose=False)
        data = data_module(s)
        if s.data is not None:
            print_once(f"{s.data}: {data.own.summary()}")
        of_data = {"num_classes": max(1, len(data.classes)), "num_levels": data.num_levels}
        model = model or VAE(**{n: getattr(s, n) for n in OF_MODEL}, **of_data)
        for name, value in of_data.items():
            if model.hparams[name] != value:
                raise InputError(f"model: the images need VAE({name}={value}, ...)")
        known = (s.data, s.dataset, s.bits) == (None, CLASSIFIED_DATASET, 4) and CLASSIFIER.exists()
        classifier = load_classifier() if known else None  # now, as a bad file ends the program
        callbacks = [callbacks] if isinstance(callbacks, Callback) else callbacks
        pictures = [GenerateCallback(save_to_disk=True), LossCurves()]
        trainer = make_trainer(run, "val_bpd", [*pictures, *callbacks])
        if s.compile:
            compile_networks(trainer.strategy.root_device, model.encoder, model.decoder)
        if trainer.is_global_zero:
            data.prepare_data()  # before other processes start, which would wait for a failed one
        run.begin(trainer.world_size)
        with explained_end(run):
            open_logs(run, trainer, logger)
            run.fit(trainer, model, data)
            test = test_best(run, trainer, model, data)
            model.eval()  # which Lightning has put back into training
            result = {**test, **show_latents(trainer, model, data.test, run.state.best_step)}
            if classifier is not None and trainer.is_global_zero:
                result["samples"] = judge_run(model, classifier, data.train, data.test, s.seed)
            result["flops_per_image"] = flops_per_image(model)
            if note := beta_note(model.hparams.beta):
                result["note"] = note
            finish(run, trainer, model, result)
    return [test]


def make_parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe whose results the README reports."""
    parser = OneLineParser(
        description="Train a variational autoencoder on 4-bit MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--z_dim", type=whole_number(1), default=32, help="latent dimensions")
    add("--num_filters", type=whole_number(1), default=32, help="width of both networks")
    add("--lr", type=positive_number, default=2.2e-3, help="peak learning rate")
    add("--beta", type=positive_number, default=1.0, help="weight of the KL in the training loss")
    help = "share of the steps in which this weight rises from 0"
    add("--beta_warmup", type=share, default=0.0, help=help)
    add("--batch_size", type=whole_number(1), default=32, help="images per step and process")
    add("--data_dir", type=path_name, default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, default="MNIST", help="images of the same file format")
    add_own_data(add, "--data")
    bits = "of a pixel: 4 for 16 grey levels; 1 for two, drawn anew from the grey in every epoch"
    add("--bits", type=int, choices=(1, 4), default=4, help=bits)
    add("--epochs", type=whole_number(1), default=8, help="passes over the training images")
    seed = whole_number(0, 2**32 - 1)
    add("--seed", type=seed, default=42, help="everything random derives from it")
    add("--num_workers", type=whole_number(0, 64), default=0, help="loader processes; 0 is fastest")
    add("--log_dir", type=path_name, default="VAE_logs", help="for logs, pictures, checkpoints")
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
    """The command line: see `run_main`."""
    parser = make_parser()

    @told_by_rank_zero()
    def work() -> None:
        train_vae(argparse.Namespace(**given_options(parser, argv)))

    run_main(parser, work)


if __name__ == "__main__":
    main()
