"""Training: what a run leaves behind, that it repeats, and that pictures do not change it."""

import argparse
import json
import math
import unittest
from collections.abc import Iterable
from contextlib import redirect_stdout
from datetime import timedelta
from functools import cache
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LambdaCallback, Timer
from pytorch_lightning.loggers import CSVLogger
from tiny import InFolder, few, own_trainer, rows, tiny_data, undrawn, without_pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fmnist
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from inputs.command_line import InputError
from judging.report import beta_note
from pictures import in_training
from pictures.epochs import KeepEpochs
from pictures.of_model import beta_words
from prior import LatentPrior
from runs.trainer import SeedEpochs
from train_pl import VAE, GenerateCallback, load_model, train_vae


def fit(*callbacks: Callback, seed: int = 0, **settings: object) -> VAE:
    """Two epochs of two steps without train_vae: only what is asked for."""
    pl.seed_everything(seed, verbose=False)
    model = VAE(num_filters=4, z_dim=3)
    trainer = own_trainer(**{"max_epochs": 2, **settings}, callbacks=[*callbacks])
    with tiny_data():
        trainer.fit(model, datamodule=fmnist.MNISTDataModule(batch_size=60, seed=seed))
    return model


plain_fit = cache(fit)


def train(folder: Path, model: object = VAE, *more: Callback, **options: object) -> str:
    """What a train_vae of two steps on the tiny data says; its run is the newest in the folder."""
    args = argparse.Namespace(log_dir=str(folder), accelerator="cpu", **options)
    with tiny_data(), redirect_stdout(StringIO()) as said:
        train_vae(args, more, model=model)
    return said.getvalue()


def assert_same(weights: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> None:
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


class TestReproducibility(unittest.TestCase):
    def test_what_an_interrupted_fit_has_left_behind_is_in_no_mean(self):
        model = VAE(num_filters=4, z_dim=3)
        model.train_means.add(torch.full((9,), 1e6), torch.zeros(9))
        model.on_train_epoch_start()
        self.assertEqual(model.train_means.count, 0)

    def test_every_epoch_and_process_has_noise_of_its_own_and_validation_always_the_same(self):
        def noise(hook: str, seed: int, epoch: int, rank: int) -> float:
            trainer = argparse.Namespace(current_epoch=epoch, global_rank=rank)
            getattr(SeedEpochs(seed), hook)(trainer, None)
            return torch.rand(1).item()

        keys = [(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
        first, again = ([noise("on_train_epoch_start", *key) for key in keys] for _ in range(2))
        self.assertEqual(len(set(first)), len(keys))
        self.assertEqual(first, again)
        draws = {noise("on_validation_epoch_start", 0, epoch, 0) for epoch in (0, 1)}
        self.assertEqual(len(draws), 1)


class TestLearnedPrior(unittest.TestCase):
    def test_encoder_and_decoder_end_with_the_same_weights_without_it(self):
        zero = mock.patch.object(LatentPrior, "log_prob", lambda self, z, y=None: z.sum(dim=1) * 0)
        with zero:
            without = fit()
        self.assertTrue(plain_fit().prior.middle.weight.any())
        self.assertFalse(without.prior.middle.weight.any())
        for part in ("encoder", "decoder"):
            one, other = (getattr(model, part) for model in (plain_fit(), without))
            assert_same(one.parameters(), other.parameters())


class TestGenerateCallback(InFolder):
    def pictures(self) -> set[str]:
        return {file.name for file in self.folder.rglob("*.png")}

    def test_writes_every_n_epochs_says_epoch_and_bpd_and_changes_no_weights(self):
        pictures = GenerateCallback(every_n_epochs=1, save_to_disk=True)
        how = {"logger": CSVLogger(self.folder), "default_root_dir": self.folder}
        nothing = np.zeros((1, 2, 3), np.uint8)
        with mock.patch.object(in_training, "rendered", return_value=nothing) as drawn:
            # Without SeedEpochs, which would hide a disturbed stream.
            model = fit(pictures, KeepEpochs(), **how)
        assert_same(plain_fit().parameters(), model.parameters())
        kinds = ("reconstructions", "samples", "kl_per_dimension")
        names = {f"epoch_0{n}_{kind}.png" for n in range(3) for kind in kinds}
        names |= {f"epoch_0{n}_samples_by_class.png" for n in (1, 2)}  # before, it is N(0, I)
        self.assertEqual(self.pictures(), names)
        titles = [call.args[0].get_suptitle() for call in drawn.mock_calls]
        said = [title.split("(")[1].rstrip(")") for title in titles if "(" in title]
        self.assertEqual(said[:2], ["before training"] * 2)
        for words in said[2:5]:
            self.assertRegex(words, r"^epoch 1, last validation \d\.\d{4} bpd$")
        bpd = model.trainer.callback_metrics["val_bpd"]
        self.assertEqual(said[5:], [f"epoch 2, last validation {bpd:.4f} bpd"] * 3)

    def test_works_with_any_loader_of_images_and_labels(self):
        images = TensorDataset(torch.randint(0, 16, (20, 1, 28, 28)), torch.arange(20) % 10)
        loader, model = DataLoader(images, batch_size=10), VAE(num_filters=2, z_dim=3)
        pictures = [GenerateCallback(save_to_disk=True)]
        trainer = own_trainer(max_epochs=1, default_root_dir=self.folder, callbacks=pictures)
        with undrawn():
            trainer.fit(model, loader, loader)
        self.assertIn("epoch_01_reconstructions.png", self.pictures())
        found = torch.cat(trainer.predict(model, loader))
        torch.testing.assert_close(found, model.reconstruct(images.tensors[0]))


class Pair(nn.Sequential):
    """Images to mean and log_std."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(x / 15).chunk(2, dim=1)


class OwnVAE(VAE):
    def __init__(self, z_dim: int, bias: float = 0.0):
        super().__init__(
            z_dim=z_dim,
            encoder=Pair(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 2 * z_dim)),
            decoder=nn.Sequential(nn.Linear(z_dim, 16 * 784), nn.Unflatten(1, (16, 28, 28))),
        )
        self.bias = bias


class TestOwnNetworks(InFolder):
    def test_a_subclass_is_trained_tested_loaded_and_resumed_for_more_epochs(self):
        own, run = OwnVAE(z_dim=2, bias=0.5), self.folder / "version_0"
        with undrawn():
            train(self.folder, own, epochs=1, batch_size=60)
        for name in ("vae_manifold.png", "epoch_01_samples.png", "latent_means.png"):
            self.assertTrue((run / name).exists(), name)
        loaded = load_model(run, OwnVAE)
        self.assertEqual((type(loaded), loaded.bias), (OwnVAE, 0.5))
        self.assertEqual(loaded.sample(3).shape, (3, 1, 28, 28))
        # Also the statistics of its BatchNorm, which judging and pictures leave alone.
        assert_same(own.state_dict().values(), loaded.state_dict().values())
        with without_pictures():
            with self.assertRaisesRegex(InputError, "--resume: .* another bias: .*model="):
                train(self.folder, OwnVAE(z_dim=2), resume=run, epochs=2)
            train(self.folder, OwnVAE(z_dim=2, bias=0.5), resume=run, epochs=2)
        options = json.loads((run / "result.json").read_text())["options"]
        self.assertEqual((options["z_dim"], options["epochs"]), (2, 2))

    def test_a_subclass_may_log_and_optimise_as_it_likes(self):
        class Silent(VAE):
            def __init__(self, lr, warmup):
                super().__init__(num_filters=2, z_dim=2, lr=lr, warmup=warmup)
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                *_, bpd = self(batch[0])
                self.optimizers().zero_grad()
                self.manual_backward(bpd)
                self.optimizers().step()

            def validation_step(self, batch, batch_idx):
                self.log("val_bpd", self(batch[0])[2])

            def configure_optimizers(self):
                optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
                return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

        model, run = Silent(np.float64(1e-3), np.float32(0.1)), self.folder / "version_0"
        with without_pictures():
            train(self.folder, model, epochs=1, batch_size=60)
        self.assertIs(type(load_model(run, Silent).hparams.lr), float)
        (row,) = rows(run / "metrics.csv")
        for part in ("reconstruction_loss", "regularization_loss", "ELBO", "bpd"):
            self.assertGreater(float(row[f"train_{part}"]), 0)

    def test_something_that_is_no_vae_is_refused_in_one_line(self):
        for model in (nn.Linear(2, 2), pl.LightningModule, "VAE", lambda: None):
            with self.assertRaisesRegex(InputError, "model: .* VAE"):
                train(self.folder, model)


class TestBeta(unittest.TestCase):
    def test_it_weighs_the_kl_in_the_training_loss_and_in_nothing_that_is_reported(self):
        imgs, labels = torch.randint(0, 16, (4, 1, 28, 28)), torch.arange(4)
        losses = []
        for beta in (1.0, 4.0):
            torch.manual_seed(0)
            model = VAE(num_filters=2, z_dim=3, beta=beta)
            model._trainer = mock.Mock(
                estimated_stepping_batches=100, global_step=100, callbacks=[]
            )
            torch.manual_seed(1)
            losses.append(model.training_step((imgs, labels), 0))
            torch.manual_seed(1)
            *_, L_reg, bpd = model(imgs)
            losses.append(bpd)
        kl = L_reg / (784 * math.log(2))
        torch.testing.assert_close(losses[2] - losses[0], 3 * kl)
        torch.testing.assert_close(losses[3], losses[1])

    def test_what_is_no_number_above_0_is_refused(self):
        for name in ("lr", "beta", "temperature"):
            for value in (0.0, -1, math.nan, math.inf):
                with self.assertRaisesRegex(ValueError, f"{name} must be a number above 0"):
                    VAE(num_filters=2, z_dim=2, **{name: value})


class TestOptions(InFolder):
    def test_beta_precision_and_compile_come_to_the_run_and_its_report_is_of_the_elbo(self):
        sentence = "trained with beta 4; all bounds are the ELBO's, where the KL has weight 1"
        options = {"num_filters": 2, "z_dim": 2, "epochs": 1, "batch_size": 60, "beta": 4}
        options |= {"beta_warmup": 0.5, "precision": "bf16-mixed", "compile": True}
        compiled, precisions = [], []
        note = LambdaCallback(on_fit_start=lambda trainer, _: precisions.append(trainer.precision))
        keep = mock.patch.object(nn.Module, "compile", lambda self: compiled.append(type(self)))
        as_is = mock.patch.object(torch, "compile", lambda function: function)
        with keep, as_is, without_pictures():
            said = train(self.folder, VAE, note, **options)
        self.assertEqual((compiled, precisions), ([CNNEncoder, CNNDecoder], ["bf16-mixed"]))
        result = json.loads((self.folder / "version_0" / "result.json").read_text())
        self.assertEqual((said.count(sentence), result["note"]), (1, sentence))
        self.assertEqual((beta_note(4), beta_note(1)), (sentence, ""))
        model = load_model(self.folder / "version_0")
        self.assertEqual({weights.dtype for weights in model.parameters()}, {torch.float32})
        self.assertEqual(model.hparams.beta_warmup, 0.5)
        self.assertIn("beta 4", beta_words(model))
        with torch.no_grad():
            bpd = model(few(train=False).images.long())[2].item()
        self.assertAlmostEqual(result["test_bpd"], bpd, delta=0.02)

    def test_half_weights_are_refused_in_one_line(self):
        for precision in ("16-true", "bf16-true", "transformer-engine"):
            with self.assertRaisesRegex(InputError, f"--precision: {precision} .*bf16-mixed$"):
                train(self.folder, precision=precision)

    def test_a_misspelt_option_of_a_caller_is_refused_with_the_nearest_name(self):
        for wrong, meant in {"epoch": "epochs", "zdim": "z_dim", "batchsize": "batch_size"}.items():
            with self.assertRaisesRegex(InputError, f"no option '{wrong}': did you mean '{meant}'"):
                train(self.folder, **{wrong: 1})


class TestLearningRate(unittest.TestCase):
    def rates(self, steps: int, seconds: int | None = None, **settings: object) -> list[float]:
        """The learning rates of at most so many steps, or seconds, one for each step."""
        found = []

        class Clock(Timer):
            def time_elapsed(self, stage: str = "train") -> float:
                return len(found)

        def note(trainer: pl.Trainer, *batch: object) -> None:
            found.append(trainer.optimizers[0].param_groups[0]["lr"])
            trainer.should_stop |= len(found) == steps

        clock = [Clock(timedelta(seconds=seconds), verbose=False)] if seconds else []
        fit(LambdaCallback(on_train_batch_end=note), *clock, limit_val_batches=0, **settings)
        return found

    def test_it_rises_and_falls_within_the_time_whatever_the_epochs_are(self):
        for epochs in (1000, -1):
            rates = self.rates(99, seconds=6, max_epochs=epochs)
            self.assertEqual(len(rates), 6)
            self.assertGreater(max(rates), 1.9e-3)
            self.assertLess(rates[-1], 2.2e-3 / 5)

    def test_without_a_last_epoch_it_is_constant(self):
        self.assertEqual(self.rates(3, max_epochs=-1), [2.2e-3] * 3)
