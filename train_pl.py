"""Train a variational autoencoder on 4-bit MNIST: python train_pl.py --progress_bar

Reading order: utils.py (the maths), cnn_encoder_decoder.py (the networks), this file (the model
and its training), fmnist.py (the data).
"""

import argparse
import json
import logging
import math
import os
import shlex
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torchvision.utils import make_grid, save_image

from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from fmnist import DATA_DIR, DATASETS, MNISTDataModule
from support.checkpoints import WholeCheckpoints, read_checkpoint, write_whole
from support.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    given_options,
    one_line,
    positive_number,
    whole_number,
)
from support.muon import Muon, warmup_and_cosine
from support.pictures import kl_figure, latent_figure, pairs_grid
from support.runs import (
    LAST,
    RESULT,
    Checkpoints,
    EndTogether,
    SeedEpochs,
    StopIfLost,
    Stopped,
    cause_on_disk,
    cut_logs,
    end_on_signals,
    locked,
    new_run_folder,
    newest_unfinished,
    quiet_writers,
)
from utils import (
    KLD,
    active_units,
    check_size,
    elbo_to_bpd,
    importance_weighted_bpd,
    kl_per_dimension,
    mean_image,
    reconstruction_loss,
    sample_reparameterize,
    visualize_manifold,
)

# The shipped model of the default run: what evaluate.py and compress.py use without a checkpoint.
PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "default.ckpt"


class VAE(pl.LightningModule):
    """A convolutional VAE with a unit Gaussian prior and a categorical distribution per pixel.

    Args:
        num_filters: width of both networks, see cnn_encoder_decoder.py.
        z_dim: latent dimensions.
        lr: peak learning rate; rises over the first steps, then falls to 0 as a cosine.
    Raises:
        ValueError: a size below 1 or a learning rate that is not a positive finite number.
    """

    WARMUP = 0.05  # share of the training steps over which the learning rate rises
    SHIFTED = 0.4  # share of the batches that are moved; without, the encoder overfits
    SHIFT_UNTIL = 0.75  # share of the training steps after which images are seen as they are
    IW_SAMPLES = 8  # of the importance-weighted bound in a test; evaluate.py takes more

    def __init__(self, num_filters: int = 32, z_dim: int = 20, lr: float = 3e-3):
        super().__init__()
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be a positive number, got {lr}")
        self.save_hyperparameters()
        self.encoder = CNNEncoder(num_filters=num_filters, z_dim=z_dim)
        self.decoder = CNNDecoder(num_filters=num_filters, z_dim=z_dim)
        self.to(memory_format=torch.channels_last)  # the faster layout for these convolutions

    def forward(self, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The negative ELBO with one sample of z per image, and its two parts.

        Args:
            imgs: long [B, 1, 28, 28], values 0..15.
        Returns:
            L_rec: mean reconstruction loss in nats per image, a scalar.
            L_reg: mean KL to the prior in nats per image, a scalar.
            bpd: mean negative ELBO in bits per dimension, a scalar; the training loss.
        Raises:
            TypeError, ValueError: see `check_images`; a batch without images, which has no mean.
        """
        mean, log_std = self.encoder(imgs)
        if len(imgs) == 0:
            raise ValueError("imgs: expected at least one image, got none")
        z = sample_reparameterize(mean, log_std.exp())
        logits = self.decoder(z)
        L_rec = reconstruction_loss(logits, imgs)
        L_reg = KLD(mean, log_std)
        bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape)
        return L_rec.mean(), L_reg.mean(), bpd.mean()

    @torch.no_grad()
    def sample(self, batch_size: int) -> Tensor:
        """New images: z ~ N(0, I), then every pixel from the decoder's categorical.

        Returns:
            long [batch_size, 1, 28, 28], values 0..15, on the model's device, no gradients.
        Raises:
            ValueError: batch_size is no whole number of at least 1.
        """
        check_size("batch_size", batch_size)
        z = torch.randn(batch_size, self.decoder.z_dim, device=self.decoder.device)
        probabilities = self.decoder(z).float().softmax(dim=1).permute(0, 2, 3, 1)
        levels = torch.multinomial(probabilities.flatten(0, 2), num_samples=1)
        return levels.view(batch_size, 1, *probabilities.shape[1:3])

    @torch.no_grad()
    def reconstruct(self, imgs: Tensor) -> Tensor:
        """The decoder's mean image at the posterior mean: float [B, 1, 28, 28] in [0, 1]."""
        mean, _ = self.encoder(imgs)
        return mean_image(self.decoder(mean))

    def augmented(self, imgs: Tensor, progress: float) -> Tensor:
        """A training batch, at times moved as a whole by up to one pixel in each direction.

        It is the encoder that overfits: on new images its posteriors are worse than on those that
        it was trained on, while the decoder is as good on both. A digit that is moved is a new
        image to the encoder, with its exact grey levels. What leaves at one edge comes back at the
        opposite one, which is black for all but 1.3 % of MNIST's images.

        Args:
            imgs: long [B, 1, 28, 28].
            progress: share of the training steps that have been taken, 0 to 1.
        Returns:
            long [B, 1, 28, 28], the images themselves or moved copies; a move by (0, 0) is one of
            the nine that are drawn.
        """
        if progress >= self.SHIFT_UNTIL or torch.rand(()) >= self.SHIFTED:
            return imgs
        return imgs.roll(torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))

    def configure_optimizers(self) -> dict:
        optimizer = Muon(self.parameters(), lr=self.hparams.lr)
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_and_cosine(step, total, self.WARMUP)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        imgs, _ = batch
        progress = self.global_step / self.trainer.estimated_stepping_batches
        L_rec, L_reg, bpd = self(self.augmented(imgs, progress))
        # Only the epoch's mean is logged: calls of log in every step made it a tenth longer.
        if batch_idx == 0:
            # The losses' dtype: torch's default is float16 here with --precision 16-true.
            self.train_sum = torch.zeros(3, dtype=bpd.dtype, device=self.device)
        self.train_sum += len(imgs) * torch.stack([L_rec, L_reg, torch.ones_like(L_rec)]).detach()
        if self.trainer.is_last_batch:
            L_rec, L_reg, count = self.train_sum
            self._log_losses("train", L_rec / count, L_reg / count, imgs.shape)
        return bpd

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        imgs, _ = batch
        L_rec, L_reg, _ = self(imgs)
        self._log_losses("val", L_rec, L_reg, imgs.shape)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        imgs, _ = batch
        L_rec, L_reg, _ = self(imgs)
        self._log_losses("test", L_rec, L_reg, imgs.shape)
        mean, log_std = self.encoder(imgs)
        noise = (torch.randn_like(mean).unsqueeze(0) for _ in range(self.IW_SAMPLES))
        bpd = importance_weighted_bpd(self.decoder, imgs, mean, log_std, noise).mean()
        self.log("test_importance_weighted_bpd", bpd, sync_dist=True, batch_size=len(imgs))

    def _log_losses(
        self, stage: str, L_rec: Tensor, L_reg: Tensor, img_shape: Sequence[int]
    ) -> None:
        """Logs the means over the epoch and over all processes, the ELBO as its negative."""
        elbo = L_rec + L_reg
        losses = {
            f"{stage}_reconstruction_loss": L_rec,
            f"{stage}_regularization_loss": L_reg,
            f"{stage}_ELBO": elbo,
        }
        how = {"on_step": False, "on_epoch": True, "sync_dist": True, "batch_size": img_shape[0]}
        self.log_dict(losses, **how)
        self.log(f"{stage}_bpd", elbo_to_bpd(elbo, img_shape), prog_bar=True, **how)


def load_model(path: str | Path) -> VAE:
    """The model in a checkpoint, on the CPU, in eval mode; the file is not trusted.

    Raises:
        InputError: see `read_checkpoint`, and for hyperparameters or weights of another model.
    """
    checkpoint = read_checkpoint(path)
    weights = checkpoint["state_dict"]
    try:
        with torch.device("meta"):  # no memory for the sizes in the file until its weights fit
            model = VAE(**checkpoint["hyper_parameters"])
        for name, expected in model.state_dict().items():
            found = weights.get(name)
            if not isinstance(found, Tensor):
                raise ValueError(f"{name} is missing")
            if found.shape != expected.shape or not found.is_floating_point():
                raise ValueError(
                    f"{name} is {found.dtype} {list(found.shape)}, not float {list(expected.shape)}"
                )
            # A tensor may claim more memory than its file has, by strides of 0.
            formats = (torch.contiguous_format, torch.channels_last)
            if not any(found.is_contiguous(memory_format=layout) for layout in formats):
                raise ValueError(f"{name} is neither contiguous nor channels_last")
            if not found.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
            weights[name] = found.float()  # of --precision 64-true and the like
        model.load_state_dict(weights, assign=True)
    except (AttributeError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"checkpoint {path} is of another model ({one_line(error)}): give one that this "
            "version of train_pl.py wrote"
        ) from error
    return model.to(memory_format=torch.channels_last).eval()


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode inside, the mode that was there before outside."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class GenerateCallback(Callback):
    """What the model has learned: samples, reconstructions, and what each latent dimension holds.

    Pictures are drawn from the same latents every time, so that two epochs can be compared, and
    from a random stream of their own, so that a run with pictures ends with the weights of one
    without.

    Args:
        batch_size: samples per picture.
        every_n_epochs: epochs between pictures; there are some before and after the first epoch
            and after the last one in any case.
        save_to_disk: also write PNG files into the run's log directory.
    """

    NUM_RECONSTRUCTIONS = 32
    NUM_ENCODED = 2000  # validation images that the latent dimensions are judged by
    SEED = 0
    ZOOM = 3  # screen pixels per pixel: a digit of 28 is small to look at

    def __init__(self, batch_size: int = 64, every_n_epochs: int = 5, save_to_disk: bool = False):
        super().__init__()
        check_size("batch_size", batch_size)
        check_size("every_n_epochs", every_n_epochs)
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.save_to_disk = save_to_disk

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        if trainer.current_epoch == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch in (1, trainer.max_epochs):
            self.sample_and_save(trainer, pl_module, epoch)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: VAE, epoch: int) -> None:
        """Writes the pictures of this epoch to TensorBoard and, with save_to_disk, to PNG.

        To TensorBoard also go the KL of each latent dimension and the number of active units.
        """
        folder = log_folder(trainer) if self.save_to_disk else None
        if not trainer.is_global_zero:
            return
        writers = tensorboard_writers(trainer)
        grids = {}
        with isolate_rng(), evaluating(pl_module):
            torch.manual_seed(self.SEED)
            samples = pl_module.sample(self.batch_size) / 15
            grids["Samples"] = make_grid(samples.cpu(), nrow=8)
            if (loader := trainer.val_dataloaders) is not None:
                images = loader.dataset.images[: self.NUM_ENCODED].long()
                with torch.no_grad():
                    mean, log_std = pl_module.encoder(images.to(pl_module.device))
                kl = kl_per_dimension(mean, log_std).mean(dim=0).cpu()
                for writer in writers:
                    writer.add_figure("KL per latent dimension", kl_figure(kl), epoch)
                    writer.add_scalar("val_active_units", active_units(mean), epoch)
                imgs = images[: self.NUM_RECONSTRUCTIONS].to(pl_module.device)
                grids["Reconstructions"] = pairs_grid(imgs / 15, pl_module.reconstruct(imgs)).cpu()
        for tag, grid in grids.items():
            grid = grid.repeat_interleave(self.ZOOM, dim=1).repeat_interleave(self.ZOOM, dim=2)
            for writer in writers:
                writer.add_image(tag, grid, global_step=epoch)
            if folder is not None:
                save_image(grid, folder / f"epoch_{epoch}_{tag.lower()}.png")


class EpochLines(Callback):
    """A line per epoch for who runs without the progress bar."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        self.first_epoch = trainer.current_epoch
        self.start = self.epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        metrics = trainer.callback_metrics  # every process: to read them is to average over all
        now = time.monotonic()
        epoch = trainer.current_epoch + 1
        per_epoch = (now - self.start) / (epoch - self.first_epoch)
        left = round(per_epoch * (trainer.max_epochs - epoch))
        say(
            f"epoch {epoch:>3}/{trainer.max_epochs}"
            f"   train {metrics['train_bpd']:.4f} bpd   val {metrics['val_bpd']:.4f} bpd"
            f"   {now - self.epoch_start:5.1f} s   about {left // 60}:{left % 60:02} left"
        )
        self.epoch_start = now


class Greeting(Callback):
    """Says, once the data has turned out well, where the run can be watched."""

    def __init__(self, command: str):
        super().__init__()
        self.command = command

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        say(f"Logging to {log_folder(trainer)}; watch it with: {self.command}")


# What keeps a run from being lost. A run that is killed at any moment goes on from `last.ckpt` and
# ends with the same files, because
# - all randomness of an epoch derives from (seed, epoch, process), never from what came before;
# - a file is complete beside its place before it is moved there (`write_whole`);
# - `last.ckpt` is the last thing that an epoch writes, and says how long the logs were by then;
# - an outdated best checkpoint is removed only after that.


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


def log_folder(trainer: pl.Trainer) -> Path:
    """The run's folder for files; every process has to ask, as rank zero tells it to the others."""
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def tensorboard_writers(trainer: pl.Trainer) -> list:
    """The SummaryWriters of the trainer's TensorBoard loggers; none with another logger."""
    return [log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)]


@torch.no_grad()
def show_latents(trainer: pl.Trainer, model: VAE, data: MNISTDataModule) -> dict[str, float]:
    """Where the test set lies in the latent space and, for two dimensions, the manifold there.

    TensorBoard's projector gets the means of the first 2,000 images, with labels and thumbnails.

    Returns:
        test_active_units, on rank zero.
    """
    folder = log_folder(trainer)
    if not trainer.is_global_zero:
        return {}
    writers = tensorboard_writers(trainer)
    batches = data.test.images.split(500)
    means = torch.cat([model.encoder(imgs.long().to(model.device))[0] for imgs in batches]).cpu()
    labels = data.test.labels.cpu()
    if model.hparams.z_dim > 1:
        figure = latent_figure(means, labels)
        figure.savefig(folder / "latent_means.png", dpi=150)
        thumbnails = data.test.images[:2000].cpu().expand(-1, 3, -1, -1) / 15
        for writer in writers:
            writer.add_figure("Latent means", figure)
            writer.add_embedding(
                means[:2000], labels[:2000].tolist(), thumbnails, tag="Latent means"
            )
    if model.hparams.z_dim == 2:
        grid = visualize_manifold(model.decoder).cpu()
        save_image(grid, folder / "vae_manifold.png")
        for writer in writers:
            writer.add_image("Manifold", grid)
    return {"test_active_units": float(active_units(means))}


def make_trainer(options: dict[str, object], **settings: object) -> pl.Trainer:
    """Lightning's Trainer with the user's options that are handed through to it.

    Raises:
        InputError: Lightning or the machine has no such accelerator, strategy or precision.
    """
    try:
        return pl.Trainer(**options, **settings)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        given = " ".join(f"--{name} {value}" for name, value in options.items())
        raise InputError(f"Lightning refuses {given}: {one_line(error)}") from error


def quiet_lightning() -> None:
    """Leaves out what Lightning says about itself and what its user can do nothing about."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a torch function
        ".*does not have many workers",  # a batch is one indexing operation: none is faster
        ".*smaller than the logging interval",  # the learning rate of a very short run
    ):
        warnings.filterwarnings("ignore", message)


# Options that may be others when a run is resumed, as they do not change its result; of --devices
# and --num_nodes only the product does, the number of processes.
FREE = {"log_dir", "data_dir", "num_workers", "progress_bar", "resume"}
FREE |= {"accelerator", "strategy", "devices", "num_nodes"}


def read_run(path: str | Path) -> dict:
    """What the last checkpoint of a run, which is not trusted, says about the run.

    Args:
        path: the run's folder or the checkpoint.
    Returns:
        `folder`, `checkpoint` (its path) and what `Checkpoints.on_save_checkpoint` adds to it.
    Raises:
        InputError: there is none or it cannot be used.
    """
    path = Path(path).absolute()
    if path.is_dir():
        path = path / "checkpoints" / LAST
        if not path.exists():
            raise InputError(
                f"argument --resume: there is no {path}, nothing to continue: start a new run"
            )
    run = read_checkpoint(path).get("run")
    model = load_model(path)
    types = {name: type(value) for name, value in vars(make_parser().parse_args([])).items()}
    types["processes"] = int
    try:
        if run is None or path.parent.name != "checkpoints":
            raise ValueError("it holds a model only, or is not in a run's folder")
        settings = run["settings"]
        for name, value in settings.items():
            if type(value) is not types[name]:
                raise TypeError(f"{name} is {value!r}")
        if dict(model.hparams) != {name: settings[name] for name in model.hparams}:
            raise ValueError("the model in it is another than its settings say")
        MNISTDataModule(batch_size=settings["batch_size"], num_workers=settings["num_workers"])
        check_size("epochs", settings["epochs"])
        if settings["dataset"] not in DATASETS or not 0 <= settings["seed"] < 2**32:
            raise ValueError(f"dataset {settings['dataset']!r}, seed {settings['seed']}")
        check_size("processes", settings["processes"])
        counts, metrics = [run["step"], *run["logs"].values()], list(run["unlogged"].values())
        if not (
            all(type(n) is int and n >= 0 for n in counts)
            and all(type(n) is float and 0 <= n < math.inf for n in metrics)
        ):
            raise ValueError(f"it says {counts} and {metrics}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"argument --resume: {path} cannot be continued ({error}): give the folder of a run "
            f"or the {LAST} in it"
        ) from error
    return {**run, "folder": path.parent.parent, "checkpoint": path}


def run_to_resume(args: argparse.Namespace) -> dict:
    """What `read_run` says of the run that --resume means, after a comparison with the options.

    Raises:
        InputError: there is no such run, it is finished, or it had other options.
    """
    where = args.resume
    if where is True:
        # The processes that Lightning starts must not search: to them the run is in use.
        if rank_zero_only.rank == 0:
            log_dir = vars(args).get("log_dir", make_parser().get_default("log_dir"))
            os.environ["TRAIN_PL_RUN"] = str(newest_unfinished(log_dir))
        elif "TRAIN_PL_RUN" not in os.environ:
            raise InputError(
                "argument --resume: name the run, as processes that torchrun or SLURM starts may "
                "each find another"
            )
        where = os.environ["TRAIN_PL_RUN"]
    run = read_run(where)
    settings = run["settings"]
    for name, value in vars(args).items():
        of_run = settings.get(name, value)
        if name not in FREE and value != of_run and not (name == "epochs" and value > of_run):
            raise InputError(
                f"argument --{name}: the run in {run['folder']} has {of_run}, not {value}: leave "
                f"it out{', or give more' if name == 'epochs' else ''}"
            )
    log_dir = run["folder"].parent
    if (given := vars(args).get("log_dir", log_dir)) and Path(given).absolute() != log_dir:
        raise InputError(f"argument --log_dir: the run is in {log_dir}, not {given}: leave it out")
    epochs = settings["epochs"]
    if (run["folder"] / RESULT).exists() and vars(args).get("epochs", epochs) == epochs:
        raise InputError(
            f"argument --resume: the run in {run['folder']} is finished: to train it for more "
            f"than its {epochs} epochs, give --epochs"
        )
    return run


@contextmanager
def faults_told(folder: Path, command: str) -> Iterator[None]:
    """Turns the end of a run by a signal, a full disk or a lost loss into one line.

    Raises:
        Stopped: with that line as its message.
        FloatingPointError, OSError: that line.
    """
    last = folder / "checkpoints" / LAST

    def how_to_go_on() -> str:
        return (
            f"continue with: {command}" if last.exists() else "no checkpoint is left: start again"
        )

    try:
        yield
    except Stopped as stopped:
        stopped.message = f"stopped; {how_to_go_on()}"
        raise
    except InputError:
        raise
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; the last good checkpoint is {last}") from error
    except Exception as error:
        if (cause := cause_on_disk(error)) is None:
            raise
        if isinstance(cause, BrokenPipeError):
            raise OSError(f"nobody reads the output any more; {how_to_go_on()}") from error
        raise OSError(
            f"cannot write into {folder} ({cause.strerror}): make room or restore the folder, "
            f"then {how_to_go_on()}"
        ) from error


def train_vae(args: argparse.Namespace) -> list[dict[str, float]]:
    """Trains, tests the best checkpoint, leaves pictures and logs, and returns the test result.

    With `args.resume` it continues a run, with that run's options; given more epochs than the run
    had, learning rate and moved images are from there on those of a run of the new length.

    Args:
        args: any namespace; a field that it lacks takes the command line's default.
    Returns:
        Lightning's test result: a list of one dict with test_bpd and its parts.
    Raises:
        InputError: data files, the log directory, the Trainer's options or the run to resume
            cannot be used.
        ValueError: a hyperparameter that makes no sense.
        FloatingPointError: the loss is no longer a finite number.
        OSError: the log directory can no longer be written.
    """
    run = run_to_resume(args) if vars(args).get("resume") else None
    defaults = vars(make_parser().parse_args([]))
    args = argparse.Namespace(**{**defaults, **(run["settings"] if run else {}), **vars(args)})
    check_size("epochs", args.epochs)
    quiet_lightning()
    pl.seed_everything(args.seed, verbose=False)
    model = VAE(args.num_filters, args.z_dim, args.lr)
    if args.compile:  # in place: the names in a checkpoint stay the same
        model.encoder.compile()
        model.decoder.compile()
    data = MNISTDataModule(
        args.data_dir, args.dataset, args.batch_size, args.num_workers, args.seed
    )
    log_dir = run["folder"].parent if run else args.log_dir
    check_writable("--log_dir", log_dir)
    settings = {
        name: type(default)(vars(args)[name])  # a caller may give devices=2 in place of "2"
        for name, default in defaults.items()
        if name not in ("log_dir", "resume")
    }
    settings["data_dir"] = os.path.abspath(args.data_dir)
    checkpoints = Checkpoints(settings)
    watch = f"tensorboard --logdir {shlex.quote(str(log_dir))}"
    if any(way in str(args.strategy) for way in ("spawn", "fork", "notebook")):
        raise InputError(
            f"argument --strategy: {args.strategy} trains in processes that end before the test: "
            "give ddp"
        )
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    trainer = make_trainer(
        {name: vars(args)[name] for name in names},
        max_epochs=args.epochs,
        logger=False,  # until it is known that there will be a run
        callbacks=[
            EndTogether(),
            Greeting(watch),
            SeedEpochs(args.seed),
            StopIfLost(),
            GenerateCallback(save_to_disk=True),
            LearningRateMonitor("step"),
            checkpoints,
            TQDMProgressBar() if args.progress_bar else EpochLines(),
        ],
        plugins=[WholeCheckpoints()],
        enable_progress_bar=args.progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,  # nothing to find out: one data set, one model
        use_distributed_sampler=False,  # MNISTDataModule gives each process its share
    )
    settings["processes"] = trainer.world_size
    if run and (before := run["settings"]["processes"]) != trainer.world_size:
        raise InputError(
            f"argument --devices: the run in {run['folder']} has {before} processes, not "
            f"{trainer.world_size}: give as many, as the batches of a step depend on it"
        )
    first = rank_zero_only.rank == 0  # the other processes neither write nor choose a folder
    if first:
        data.prepare_data()  # before other processes start, which would wait for a failed one
    folder = run["folder"] if run else new_run_folder(log_dir) if first else Path(log_dir, "none")
    trainer.logger = logger = TensorBoardLogger(
        str(folder.parent), name=None, version=folder.name, default_hp_metric=False
    )
    command = f"python train_pl.py --resume {shlex.quote(str(folder))}"
    if run and args.epochs > run["settings"]["epochs"]:
        command += f" --epochs {args.epochs}"
    with locked(folder) if first else nullcontext(True) as free, faults_told(folder, command):
        if not free:
            raise InputError(f"argument --resume: another process is working on {folder}")
        from_start = run is None or run["step"] == 0  # a checkpoint of the start adds nothing
        if run and first:
            cut_logs(folder, {} if from_start else run["logs"])
        if not from_start:
            say(f"Continuing {folder}")
            logger.log_metrics(run["unlogged"], step=run["step"] - 1)
        try:
            trainer.fit(
                model,
                datamodule=data,
                ckpt_path=None if from_start else run["checkpoint"],
                weights_only=True,
            )
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if not checkpoints.restoring or isinstance(error, InputError):
                raise
            raise InputError(
                f"argument --resume: {run['checkpoint']} cannot be continued ({error}): it is "
                "damaged or of another version"
            ) from error
        (test,) = result = trainer.test(
            model,
            datamodule=data,
            ckpt_path=checkpoints.best_path,
            weights_only=True,
            verbose=False,
        )
        latents = show_latents(trainer, model, data)
        shown = {name: vars(args)[name] for name in ("dataset", "batch_size", "epochs", "seed")}
        logger.log_hyperparams(
            {**model.hparams, **shown}, {**test, **latents}, step=trainer.global_step
        )
        logger.save()
        if first:
            write_whole(folder / RESULT, json.dumps(test, indent=2).encode())

    say(
        f"\nTest of the best checkpoint: {test['test_bpd']:.4f} bpd"
        f" = {test['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {test['test_regularization_loss']:.1f} nats KL\n"
        f"Pictures:    {os.path.join(logger.log_dir, '*.png')}\n"
        f"Checkpoint:  {checkpoints.best_path}\n"
        f"TensorBoard: {watch}"
    )
    return result


def make_parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe whose results the README reports."""
    parser = OneLineParser(
        description="Train a variational autoencoder on 4-bit MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--z_dim", type=whole_number(1), default=20, help="latent dimensions")
    add("--num_filters", type=whole_number(1), default=32, help="width of both networks")
    add("--lr", type=positive_number, default=3e-3, help="peak learning rate")
    add("--batch_size", type=whole_number(1), default=64, help="images per step and process")
    add("--data_dir", default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, default="MNIST", help="images of the same file format")
    add("--epochs", type=whole_number(1), default=16, help="passes over the training images")
    add(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=42,
        help="everything random derives from it",
    )
    add("--num_workers", type=whole_number(0), default=0, help="loader processes; 0 is fastest")
    add("--log_dir", default="VAE_logs", help="folder for logs, pictures and checkpoints")
    add("--progress_bar", action="store_true", help="a progress bar instead of a line per epoch")
    add("--compile", action="store_true", help="torch.compile the networks: pays on long runs")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="RUN",
        help="continue this run, a folder or its checkpoint; without one, the newest unfinished "
        "run under --log_dir",
    )
    lightning = parser.add_argument_group("handed through to Lightning's Trainer")
    add = lightning.add_argument
    add("--accelerator", default="auto", help="cpu, gpu, mps, ...")
    add("--devices", default="auto", help="how many of them, or which")
    add("--num_nodes", type=whole_number(1), default=1, help="machines")
    add("--strategy", default="auto", help="how several processes work together, such as ddp")
    add("--precision", default="32-true", help="such as 32-true or bf16-mixed")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: bad input ends with one line and exit code 2, a lost training with 1."""
    parser = make_parser()
    args = given_options(parser, argv)
    end_on_signals()
    threading.excepthook = quiet_writers
    try:
        train_vae(args)
    except InputError as error:
        code, message = 2, f"error: {error}"
    except (FloatingPointError, OSError) as error:
        code, message = 1, str(error)
    except Stopped as stopped:
        code, message = stopped.code, stopped.message
    else:
        return
    said_here = rank_zero_only.rank == 0 or code == 2  # other ends are the same on all processes
    parser.exit(code, f"{parser.prog}: {message}\n" if said_here else None)


if __name__ == "__main__":
    main()
