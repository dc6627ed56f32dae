"""The model: a variational autoencoder, its losses and its training steps.

Networks are in cnn_encoder_decoder.py, the maths in utils.py; train_pl.py trains it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from fmnist import SIDE
from inputs.checks import check_positive, check_tensors
from inputs.command_line import InputError, one_line
from muon import Muon, warmup_and_line
from prior import LatentPrior, check_prior
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import check_classes, classes_of, read_model
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


class RunningMeans:
    """Means over images of the losses that several steps gave, added up where they are."""

    def __init__(self) -> None:
        self.sums, self.count = 0.0, 0

    def add(self, *losses: Tensor) -> None:
        """Takes in the losses of a batch, float [B] each."""
        self.sums = self.sums + torch.stack(losses).detach().sum(dim=1)
        self.count += len(losses[0])

    def take(self) -> tuple[Tensor, Tensor, int]:
        """The mean of each loss and the number of images since it was last asked."""
        means, count = self.sums / self.count, self.count
        self.sums, self.count = 0.0, 0
        return *means, count


def time_share(trainer: pl.Trainer) -> float | None:
    """How much of a limit on the time has passed, 0 to 1: max_time, which is a Timer."""
    for timer in trainer.callbacks:
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
            passed = timer.time_elapsed()
            return min(1, passed / (passed + left))
    return None


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
        beta_warmup: float = 0.0,  # share of the steps in which it rises from 0
        warmup: float = 0.05,  # share of the steps in which lr rises; then it falls on a line to 0
        shift_probability: float = 0.4,  # share of batches that are moved, against overfitting
        shift_until: float = 0.75,  # share of the steps after which images are seen as they are
        prior_lr: float = 3e-3,  # peak learning rate of the prior
        temperature: float = 0.9,  # of the prior in samples: below 1, fewer z far from all images
        num_classes: int = 10,  # of the labels that the prior learns; 1 without labels
        num_levels: int = 16,  # L, the grey levels of the images
        encoder: nn.Module | None = None,  # in place of CNNEncoder: images to mean and log_std
        decoder: nn.Module | None = None,  # in place of CNNDecoder: z to logits
        prior: nn.Module | None = None,  # in place of LatentPrior, see there
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["encoder", "decoder", "prior"])
        for name, value in self.hparams.items():
            if isinstance(value, np.generic):  # which weights_only=True would not load
                self.hparams[name] = value.item()
        for name in ("lr", "beta", "temperature"):
            self.hparams[name] = check_positive(name, self.hparams[name])
        self.encoder = encoder or CNNEncoder(1, num_filters, z_dim, num_levels)
        self.decoder = decoder or CNNDecoder(num_levels, num_filters, z_dim)
        self.decoder.z_dim = z_dim  # what `visualize_manifold` asks a decoder for
        self.to(memory_format=torch.channels_last)  # the faster layout for these convolutions
        self.prior = prior or LatentPrior(z_dim, num_classes=num_classes)
        check_prior(self.prior, "models", "z_dim", "num_classes", "log_prob", "sample")
        self.hparams["num_classes"] = self.prior.num_classes
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

        All that is reported comes from here: another loss is for `objective`, another likelihood
        for the decoder or `log_px`.

        Returns:
            L_rec, L_reg: float [B], in nats, see `forward`.
            z: float [B, z_dim], drawn from q(z|x).
            mean, log_std: float [B, z_dim], of q(z|x).
        """
        mean, log_std = self.encoder(imgs)
        if len(imgs) == 0:
            raise ValueError("imgs: expected at least one image, got none")
        z = sample_reparameterize(mean, log_std.exp())
        L_rec, L_reg = -self.log_px(z, imgs), KLD(mean, log_std)
        if self.training:  # for what is logged, whatever a training step makes of them
            self.train_means.add(L_rec, L_reg)
        return L_rec, L_reg, z, mean, log_std

    def objective(
        self, imgs: Tensor, L_rec: Tensor, L_reg: Tensor, z: Tensor, mean: Tensor, log_std: Tensor
    ) -> Tensor:
        """What encoder and decoder are trained on; a subclass may have another one.

        Here it is the negative ELBO with a weight for its KL, which may rise from 0 (Bowman et al.
        2016, "Generating sentences from a continuous space"). What is reported is the ELBO.

        Args:
            imgs: a batch, see `forward`; the others are its `elbo_terms`.
        Returns:
            a scalar, in bits per dimension.
        """
        beta = self.hparams.beta
        if self.hparams.beta_warmup > 0:
            beta *= min(1, self.progress / self.hparams.beta_warmup)
        return elbo_to_bpd(L_rec + beta * L_reg, imgs.shape).mean()

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1, of steps or time: what schedules go by."""
        steps = self.global_step / self.trainer.estimated_stepping_batches
        return max(steps, time_share(self.trainer) or 0)

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

        def factor(step: int) -> float:
            if time_share(self.trainer) is None:
                return warmup_and_line(step, total, self.hparams.warmup)
            parts = 10**6  # of the training; nobody knows how many steps there will be
            return warmup_and_line(parts * self.progress, parts, self.hparams.warmup)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        lr_scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        imgs, labels = batch
        seen = self.augmented(imgs, self.progress)
        L_rec, L_reg, z, *posterior = self.elbo_terms(seen)
        loss = self.objective(seen, L_rec, L_reg, z, *posterior)
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

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["model_classes"] = classes_of(self)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        check_classes(self, checkpoint)

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


@torch.no_grad()
def try_out(model: VAE) -> None:
    """One image through a model, before a run begins; modes and random streams are left alone.

    Raises:
        InputError: its parts do not fit together, or what is reported would not be the ELBO.
    """
    if type(model).elbo_terms is not VAE.elbo_terms:
        raise InputError(
            "model: elbo_terms is what is reported: another loss is for `objective`, another "
            "likelihood for the decoder or `log_px`"
        )
    imgs, training = torch.zeros(1, 1, SIDE, SIDE).long().to(model.device), model.training
    try:
        with isolate_rng(), torch.compiler.set_stance("force_eager"):
            L_rec, L_reg, z, *_ = model.eval().elbo_terms(imgs)
            log_pz = model.prior.log_prob(z), model.prior.log_prob(z, imgs[:, 0, 0, 0])
            check_tensors("log p(x|z), KL and log p(z)", (1,), L_rec, L_reg, *log_pz)
            check_tensors("mean images", tuple(imgs.shape), model.mean_image(z))
            check_tensors("z of the prior", tuple(z.shape), model.sample_latents(1))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"model: {one_line(error)}") from error
    finally:
        model.train(training)


def check_logits(model: VAE, what: str) -> None:
    """Raises InputError, a line with `what`, where p(x|z) is not just the decoder's logits."""
    for name in ("logits", "log_px", "mean_image", "draw_pixels"):
        if getattr(type(model), name) is not getattr(VAE, name):
            own = f"{type(model).__name__} has a {name} of its own"
            raise InputError(f"{what} need p(x|z) as the logits of the decoder; {own}")


def load_model(
    path: str | Path, make: Callable[..., VAE] | None = None, **networks: nn.Module
) -> VAE:
    """The model in a checkpoint, on the CPU, in eval mode.

    Args:
        path: a checkpoint, or the folder of a run, for its best one.
        make: the class of the model that was saved, if that is not VAE, or a function that makes
            it: what --model names.
        networks: `encoder`, `decoder` and `prior`, where the model was given its own.
    Raises:
        InputError: see `find_checkpoint` and `read_checkpoint`, and for a checkpoint of another
            model or with weights that are not finite.
    """
    with isolate_rng():
        return read_model(make or VAE, find_checkpoint(path), **networks).eval()
