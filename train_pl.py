"""Train a variational autoencoder on 4-bit MNIST: python train_pl.py --progress_bar

Reading order: utils.py (the maths), cnn_encoder_decoder.py (the networks), this file (the model
and its training), fmnist.py (the data).
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from fmnist import DATA_DIR, DATASETS
from inputs.checks import check_positive, check_size, check_tensors
from inputs.command_line import (
    InputError,
    OneLineParser,
    given_options,
    path_name,
    positive_number,
    run_main,
    whole_number,
)
from judging.report import beta_note
from judging.samples import CLASSIFIED_DATASET, CLASSIFIER, judge_run, load_classifier
from judging.size import flops_per_image
from muon import Muon, warmup_and_line
from pictures.in_training import LossCurves, show_epoch, show_latents
from prior import LatentPrior
from reading.choice import add_own_data, data_module
from runs.checkpoints import find_checkpoint, read_model
from runs.logs import RunningMeans, open_logs
from runs.result import finish, test_best
from runs.run import open_run
from runs.stopping import explained_end, stop_on_signals, told_by_rank_zero
from runs.trainer import add_trainer_options, compile_networks, make_trainer, restored_process
from utils import (
    KLD,
    draw_image,
    elbo_to_bpd,
    importance_weighted_bpd,
    mean_image,
    reconstruction_loss,
    sample_reparameterize,
    sampled_negative_elbo,
    unit_gaussian_log_prob,
)

# The shipped model of the default run: what evaluate.py and compress.py use without a checkpoint.
PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "default.ckpt"
OF_MODEL = ("num_filters", "z_dim", "lr", "beta")  # options that are arguments of VAE


class VAE(pl.LightningModule):
    """A convolutional VAE with a categorical distribution per pixel, and a prior that it learns.

    Encoder and decoder are trained on the ELBO with the unit Gaussian as prior. Beside them, and
    without an influence on them, `prior` learns where the encoder puts the images: new images are
    drawn from it, and it gives a second, tighter bound.

    In what it logs, train_, val_ and test_ELBO are the negative ELBO and `_regularization_loss` is
    the KL to the unit Gaussian, both in nats per image.

    Raises:
        ValueError: a size below 1; lr, beta or temperature that is not a positive finite number.
    """

    IW_SAMPLES = 4  # of the importance-weighted bounds in a test; evaluate.py takes more

    def __init__(
        self,
        num_filters: int = 32,  # width of both networks
        z_dim: int = 32,  # latent dimensions
        lr: float = 2.2e-3,  # peak learning rate of the networks
        beta: float = 1.0,  # weight of the KL in the training loss (Higgins et al. 2017)
        warmup: float = 0.05,  # share of the steps in which lr rises; then it falls on a line to 0
        shift_probability: float = 0.4,  # share of batches that are moved, against overfitting
        shift_until: float = 0.75,  # share of the steps after which images are seen as they are
        prior_lr: float = 3e-3,  # peak learning rate of the prior
        temperature: float = 0.9,  # of the prior in samples: below 1, fewer z far from all images
        num_classes: int = 10,  # of the labels that the prior learns; 1 without labels
        num_levels: int = 16,  # L, the grey levels of the images
        encoder: nn.Module | None = None,  # in place of CNNEncoder: images to mean and log_std
        decoder: nn.Module | None = None,  # in place of CNNDecoder: z to logits
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["encoder", "decoder"])
        for name, value in self.hparams.items():
            if isinstance(value, np.generic):  # which weights_only=True would not load
                self.hparams[name] = value.item()
        for name in ("lr", "beta", "temperature"):
            self.hparams[name] = check_positive(name, self.hparams[name])
        self.encoder = encoder or CNNEncoder(1, num_filters, z_dim, num_levels)
        self.decoder = decoder or CNNDecoder(num_levels, num_filters, z_dim)
        self.decoder.z_dim = z_dim  # what `visualize_manifold` asks a decoder for
        self.to(memory_format=torch.channels_last)  # the faster layout for these convolutions
        self.prior = LatentPrior(z_dim, num_classes=num_classes)
        self.train_means = RunningMeans()

    def forward(self, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The negative ELBO with one sample of z per image, and its two parts.

        Args:
            imgs: long [B, 1, 28, 28], values 0..num_levels-1.
        Returns:
            L_rec: mean reconstruction loss in nats per image, a scalar.
            L_reg: mean KL to the unit Gaussian in nats per image, a scalar.
            bpd: mean negative ELBO in bits per dimension, a scalar; with beta 1 the networks' loss.
        Raises:
            TypeError, ValueError: imgs are something else; no image, which has no mean.
        """
        L_rec, L_reg, *_ = self.elbo_terms(imgs)
        L_rec, L_reg = L_rec.mean(), L_reg.mean()
        return L_rec, L_reg, elbo_to_bpd(L_rec + L_reg, imgs.shape)

    def elbo_terms(self, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the bounds of every image consist of, from one sample of z each.

        Returns:
            L_rec, L_reg: float [B], in nats, see `forward`.
            z: float [B, z_dim], drawn from q(z|x).
            mean, log_std: float [B, z_dim], of q(z|x).
        """
        mean, log_std = self.encoder(imgs)
        if len(imgs) == 0:
            raise ValueError("imgs: expected at least one image, got none")
        z = sample_reparameterize(mean, log_std.exp())
        return -self.log_px(z, imgs), KLD(mean, log_std), z, mean, log_std

    # All that is ever asked of p(x|z): how likely an image is, its mean, a draw.

    def logits(self, z: Tensor) -> Tensor:
        """The decoder's output, checked: float [B, z_dim] to float [B, num_levels, H, W]."""
        logits = self.decoder(z)
        check_tensors("the decoder's logits", (len(z), self.hparams.num_levels, "H", "W"), logits)
        return logits

    def log_px(self, z: Tensor, imgs: Tensor) -> Tensor:
        """log p(x|z) in nats, float [B]: of z, float [B, z_dim], and imgs, long [B, 1, H, W]."""
        return -reconstruction_loss(self.logits(z), imgs)

    def mean_image(self, z: Tensor) -> Tensor:
        """Expected grey levels of z, float [B, z_dim]: float [B, 1, H, W], scaled to [0, 1]."""
        return mean_image(self.logits(z))

    @torch.no_grad()
    def draw_pixels(self, z: Tensor) -> Tensor:
        """Images drawn from p(x|z): float [B, z_dim] to long [B, 1, H, W]; see `draw_image`."""
        return draw_image(self.logits(z))

    @torch.no_grad()
    def sample(self, batch_size: int, labels: Tensor | None = None) -> Tensor:
        """New images: z from the learned prior, then every pixel from the decoder's categorical.

        The temperature keeps z to the denser places of the prior; the bounds are those without it.

        Args:
            batch_size: how many.
            labels: long [batch_size], values 0..num_classes-1: of these classes; without, of any.
        Returns:
            long [batch_size, 1, 28, 28], values 0..num_levels-1, on the model's device.
        Raises:
            TypeError, ValueError: batch_size is no whole number of at least 1, labels do not fit.
            FloatingPointError: the model's outputs are not finite numbers.
        """
        return self.draw_pixels(self.sample_latents(batch_size, labels))

    def sample_latents(self, num: int, labels: Tensor | None = None) -> Tensor:
        """z from the learned prior at the model's temperature: float [num, z_dim], see `sample`."""
        return self.prior.sample(num, labels, self.hparams.temperature)

    @torch.no_grad()
    def reconstruct(self, imgs: Tensor) -> Tensor:
        """The decoder's mean image at the posterior mean: float [B, 1, 28, 28] in [0, 1].

        Args:
            imgs: long [B, 1, 28, 28], values 0..num_levels-1; `fmnist.discretize` makes them.
        """
        mean, _ = self.encoder(imgs)
        return self.mean_image(mean)

    def augmented(self, imgs: Tensor, progress: float) -> Tensor:
        """A training batch, at times moved as a whole by up to one pixel in each direction.

        It is the encoder that overfits, and a digit that is moved is a new image to it, with exact
        grey levels. What leaves at one edge comes back at the other one, which is black for all but
        1.3 % of MNIST's images.

        Args:
            imgs: long [B, 1, 28, 28].
            progress: share of the training steps that have been taken, 0 to 1.
        """
        if progress >= self.hparams.shift_until or torch.rand(()) >= self.hparams.shift_probability:
            return imgs
        return imgs.roll(torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))

    def make_optimizer(self) -> Muon:
        networks = [*self.encoder.parameters(), *self.decoder.parameters()]
        prior = {"params": self.prior.parameters(), "adam": True, "lr": self.hparams.prior_lr}
        groups = [{"params": networks, "name": "networks"}, {**prior, "name": "prior"}]
        return Muon(groups, lr=self.hparams.lr)

    def configure_optimizers(self) -> dict:
        optimizer = self.make_optimizer()
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_and_line(step, total, self.hparams.warmup)
        )
        lr_scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        imgs, labels = batch
        progress = self.global_step / self.trainer.estimated_stepping_batches
        L_rec, L_reg, z, *_ = self.elbo_terms(self.augmented(imgs, progress))
        self.train_means.add(L_rec, L_reg)
        loss = elbo_to_bpd(L_rec + self.hparams.beta * L_reg, imgs.shape).mean()
        # The prior learns from z as it is: no gradient of its loss reaches encoder or decoder.
        prior_loss = -self.prior.log_prob(z.detach(), labels).mean()
        return loss + elbo_to_bpd(prior_loss, imgs.shape)

    def on_train_epoch_start(self) -> None:
        self.train_means = RunningMeans()  # a fit that was interrupted leaves some behind

    def on_train_batch_end(
        self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor], batch_idx: int
    ) -> None:
        # Logging in every step would make it a tenth longer.
        every, trainer = self.trainer.log_every_n_steps, self.trainer
        point = every and self.global_step % every == 0
        now = point or trainer.is_last_batch or trainer.should_stop
        if not (now and self.train_means.count):  # a subclass may have another training_step
            return
        L_rec, L_reg, count = self.train_means.take()
        losses = self._log_losses("train", L_rec, L_reg, batch[0].shape, count)
        if point:
            of_step = {f"{name}_step": value for name, value in losses.items()}
            self.log_dict(of_step, on_epoch=False, sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._eval_step("val", batch[0])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        imgs = batch[0]
        self._eval_step("test", imgs)
        mean, log_std = self.encoder(imgs)
        noise = (torch.randn_like(mean).unsqueeze(0) for _ in range(self.IW_SAMPLES))
        priors = (unit_gaussian_log_prob, self.prior.log_prob)
        bpds = importance_weighted_bpd(self.log_px, imgs, mean, log_std, noise, priors)
        for prior, bpd in zip(("", "_prior"), bpds, strict=True):
            name = f"test_importance_weighted{prior}_bpd"
            self.log(name, bpd.mean(), sync_dist=True, batch_size=len(imgs))

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Reconstructions, see `reconstruct`; for latents call `encoder`."""
        return self.reconstruct(batch if isinstance(batch, Tensor) else batch[0])

    def _eval_step(self, stage: str, imgs: Tensor) -> None:
        """Logs both bounds: the one with the unit Gaussian, and with the learned prior."""
        L_rec, L_reg, z, mean, log_std = self.elbo_terms(imgs)
        self._log_losses(stage, L_rec.mean(), L_reg.mean(), imgs.shape, len(imgs))
        log_pz = self.prior.log_prob(z)
        bpd = elbo_to_bpd(sampled_negative_elbo(L_rec, z, mean, log_std, log_pz), imgs.shape).mean()
        self.log(f"{stage}_prior_bpd", bpd, prog_bar=True, sync_dist=True, batch_size=len(imgs))

    def _log_losses(
        self, stage: str, L_rec: Tensor, L_reg: Tensor, img_shape: torch.Size, count: int
    ) -> dict[str, Tensor]:
        """Logs means over `count` images, of which Lightning makes those of the epoch."""
        negative_elbo = L_rec + L_reg
        losses = {
            f"{stage}_reconstruction_loss": L_rec,
            f"{stage}_regularization_loss": L_reg,
            f"{stage}_ELBO": negative_elbo,
            f"{stage}_bpd": elbo_to_bpd(negative_elbo, img_shape),
        }
        self.log_dict(losses, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)
        return losses


def load_model(path: str | Path, model_class: type[VAE] = VAE, **networks: nn.Module) -> VAE:
    """The model in a checkpoint, on the CPU, in eval mode.

    Args:
        path: a checkpoint, or the folder of a run, for its best one.
        model_class: of the model that was saved.
        networks: `encoder` and `decoder`, where the model was given its own.
    Raises:
        InputError: see `find_checkpoint` and `read_checkpoint`, and for a checkpoint of another
            model or with weights that are not finite.
    """
    with isolate_rng():
        return read_model(model_class, find_checkpoint(path), **networks).eval()


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

    def __init__(self, batch_size: int = 64, every_n_epochs: int = 5, save_to_disk: bool = False):
        super().__init__()
        self.batch_size = check_size("batch_size", batch_size)
        self.every_n_epochs = check_size("every_n_epochs", every_n_epochs)
        self.save_to_disk = save_to_disk

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        if trainer.current_epoch == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch in (1, trainer.max_epochs):
            self.sample_and_save(trainer, pl_module, epoch)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: VAE, epoch: int) -> None:
        """Writes the pictures of this epoch; see `show_epoch`."""
        show_epoch(trainer, pl_module, epoch, self.batch_size, self.save_to_disk)


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
