"""Training: what a run leaves behind, that it repeats, and that pictures do not change it."""

import argparse
import csv
import json
import math
import unittest
from contextlib import nullcontext, redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Timer
from pytorch_lightning.loggers import CSVLogger
from tiny import NUM_TRAIN, NUM_VAL, InFolder, own_trainer, tiny_data, without_pictures
from torch import nn
from torch.nn import Parameter
from torch.utils.data import DataLoader, TensorDataset

import fmnist
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from inputs.command_line import InputError
from judging.report import beta_note
from muon import Muon
from pictures import in_training
from pictures.of_model import beta_words
from prior import LatentPrior
from runs.trainer import SeedEpochs
from train_pl import VAE, GenerateCallback, load_model, make_parser, train_vae
from utils import sampled_negative_elbo

PARTS = ("reconstruction_loss", "regularization_loss", "ELBO", "bpd")


def fit(*callbacks: Callback, seed: int = 0, batch_size: int = 50, **settings: object) -> VAE:
    """Two epochs on the tiny data without train_vae: only what is asked for."""
    pl.seed_everything(seed, verbose=False)
    model = VAE(num_filters=4, z_dim=3)
    trainer = own_trainer(**{"max_epochs": 2, **settings}, callbacks=[*callbacks])
    with tiny_data():
        data = fmnist.MNISTDataModule(batch_size=batch_size, seed=seed)
        trainer.fit(model, datamodule=data)
    return model


def train(
    folder: Path,
    model: VAE | type[VAE] = VAE,
    pictures: bool = False,
    said: StringIO | None = None,
    **options: object,
) -> dict[str, float]:
    """train_vae on the tiny data: the test result."""
    args = argparse.Namespace(log_dir=str(folder), accelerator="cpu", **options)
    drawn = nullcontext() if pictures else without_pictures()
    with tiny_data(), drawn, redirect_stdout(said or StringIO()):
        (test,) = train_vae(args, model=model)
    return test


def same_weights(a: VAE, b: VAE) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


class TestCompile(InFolder):
    def test_compile_hands_both_networks_to_torch_compile(self):
        compiled = []
        keep = mock.patch.object(nn.Module, "compile", lambda self: compiled.append(type(self)))
        with keep, mock.patch.object(torch, "compile", lambda function: function):
            train(self.folder, epochs=1, num_filters=4, compile=True)
        self.assertEqual(compiled, [CNNEncoder, CNNDecoder])


class TestReproducibility(unittest.TestCase):
    def test_the_same_seed_gives_the_same_weights_and_another_seed_others(self):
        first = fit(SeedEpochs(0), max_epochs=1)
        self.assertTrue(same_weights(first, fit(SeedEpochs(0), max_epochs=1)))
        self.assertFalse(same_weights(first, fit(SeedEpochs(1), seed=1, max_epochs=1)))

    def test_what_an_interrupted_fit_has_left_behind_is_in_no_mean(self):
        class LeftBehind(Callback):
            def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
                pl_module.train_means.add(torch.full((9,), 1e6), torch.zeros(9))

        model = fit(LeftBehind(), max_epochs=1)
        self.assertLess(model.trainer.callback_metrics["train_bpd"], 8)

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


class TestLearnedPrior(InFolder):
    def test_encoder_and_decoder_end_with_the_same_weights_without_it(self):
        def networks(model: VAE) -> list[torch.Tensor]:
            return [*model.encoder.parameters(), *model.decoder.parameters()]

        with_prior = fit()
        self.assertTrue(with_prior.prior.middle.weight.any())
        zero = mock.patch.object(LatentPrior, "log_prob", lambda self, z, y=None: z.sum(dim=1) * 0)
        with zero:
            without = fit()
        self.assertFalse(without.prior.middle.weight.any())
        for one, other in zip(networks(with_prior), networks(without), strict=True):
            self.assertTrue(torch.equal(one, other))

    def test_its_loss_reaches_neither_encoder_nor_decoder(self):
        model = VAE(num_filters=4, z_dim=3)
        imgs, labels = torch.randint(0, 16, (8, 1, 28, 28)), torch.arange(8)
        _, _, z, *_ = model.elbo_terms(imgs)
        (-model.prior.log_prob(z.detach(), labels).mean()).backward()
        for p in [*model.encoder.parameters(), *model.decoder.parameters()]:
            self.assertIsNone(p.grad)
        self.assertTrue(model.prior.middle.weight.grad.any())

    def test_an_untrained_one_gives_the_bound_of_the_unit_gaussian(self):
        model = VAE(num_filters=4, z_dim=3)
        L_rec, L_reg, *sample = model.elbo_terms(torch.randint(0, 16, (500, 1, 28, 28)))
        sampled = sampled_negative_elbo(L_rec, *sample, model.prior.log_prob(sample[0])) - L_rec
        self.assertAlmostEqual(sampled.mean().item(), L_reg.mean().item(), delta=0.1)

    def test_samples_by_class_want_a_class_for_each(self):
        model = VAE(num_filters=2, z_dim=3)
        self.assertEqual(model.sample(4, torch.tensor([0, 9, 3, 3])).shape, (4, 1, 28, 28))
        for labels in (torch.tensor([0, 10, 3, 3]), torch.tensor([0, -1, 3, 3]), torch.arange(3)):
            with self.assertRaisesRegex(ValueError, "labels"):
                model.sample(4, labels)
        with self.assertRaisesRegex(TypeError, "labels"):
            model.sample(4, torch.zeros(4))


class TestGenerateCallback(InFolder):
    def pictures(self) -> set[str]:
        return {file.name for file in self.folder.rglob("*.png")}

    def test_writes_every_n_epochs_says_epoch_and_bpd_and_changes_no_weights(self):
        pictures = GenerateCallback(every_n_epochs=1, save_to_disk=True)
        how = {"logger": CSVLogger(self.folder), "default_root_dir": self.folder}
        with mock.patch.object(in_training, "rendered", wraps=in_training.rendered) as drawn:
            model = fit(pictures, **how)  # without SeedEpochs, which would hide a disturbed stream
        self.assertTrue(same_weights(fit(), model))
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
        images = TensorDataset(torch.randint(0, 16, (40, 1, 28, 28)), torch.arange(40) % 10)
        loader, model = DataLoader(images, batch_size=8), VAE(num_filters=2, z_dim=3)
        pictures = [GenerateCallback(save_to_disk=True)]
        trainer = own_trainer(max_epochs=1, default_root_dir=self.folder, callbacks=pictures)
        trainer.fit(model, loader, loader)
        self.assertIn("epoch_01_reconstructions.png", self.pictures())
        found = torch.cat(trainer.predict(model, loader))
        torch.testing.assert_close(found, model.reconstruct(images.tensors[0]))

    def test_leaves_modes_and_the_random_stream_as_it_found_them(self):
        model = VAE(num_filters=4, z_dim=3, lr=1e-3)
        trainer = own_trainer(default_root_dir=self.folder)
        before = torch.get_rng_state()
        for mode in (True, False):
            model.train(mode)
            GenerateCallback(4, save_to_disk=not mode).sample_and_save(trainer, model, epoch=7)
            self.assertEqual({part.training for part in model.modules()}, {mode})
            self.assertEqual(len(self.pictures()), 0 if mode else 2)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))


class TestMuon(unittest.TestCase):
    def step(self, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The change of a parameter in one step, and its gradient."""
        torch.manual_seed(0)
        p = Parameter(torch.randn(shape))
        before = p.detach().clone()
        optimizer = Muon([p], lr=0.01, weight_decay=0.0)
        p.grad = gradient = torch.randn(shape)
        optimizer.step()
        return p.detach() - before, gradient

    def test_a_matrix_moves_along_its_orthogonalized_gradient(self):
        for shape in ((8, 40), (40, 8), (8, 4, 3, 3)):
            change, gradient = self.step(*shape)
            u, _, vt = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
            inner = u.T @ change.flatten(1) @ vt.T
            rows, columns = change.flatten(1).shape
            expected = -5 * 0.01 * max(1, rows / columns) ** 0.5
            self.assertTrue((inner.diag() / expected - 1).abs().max() < 0.4)
            self.assertLess((inner - inner.diag().diag()).abs().max(), abs(expected) * 1e-3)

    def test_a_vector_or_a_number_moves_along_its_gradient_by_a_length_of_its_own(self):
        for shape in ((8,), ()):
            change, gradient = self.step(*shape)
            cosine = torch.cosine_similarity(change.view(1, -1), gradient.view(1, -1)).item()
            self.assertAlmostEqual(cosine, -1, places=5)
            self.assertAlmostEqual(change.square().mean().sqrt().item() / (5 * 0.01), 1, delta=0.4)


class TestOptions(InFolder):
    def test_values_that_make_no_sense_are_refused_before_anything_is_written(self):
        for wrong in ({"epochs": -1}, {"batch_size": 0}, {"num_workers": -2}, {"z_dim": 0}):
            with self.assertRaisesRegex(ValueError, next(iter(wrong))):
                train(self.folder / "logs", **wrong)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_misspelt_option_of_a_caller_is_refused_with_the_nearest_name(self):
        for wrong, meant in {"epoch": "epochs", "zdim": "z_dim", "batchsize": "batch_size"}.items():
            with self.assertRaisesRegex(InputError, f"no option '{wrong}': did you mean '{meant}'"):
                train(self.folder, **{wrong: 1})


class Pair(nn.Linear):
    """Flat images to mean and log_std."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(x / 15).chunk(2, dim=1)


def own_networks(z_dim: int) -> dict[str, nn.Module]:
    return {
        "encoder": nn.Sequential(nn.Flatten(), Pair(784, 2 * z_dim)),
        "decoder": nn.Sequential(nn.Linear(z_dim, 16 * 784), nn.Unflatten(1, (16, 28, 28))),
    }


class OwnVAE(VAE):
    def __init__(self, z_dim: int, bias: float = 0.0):
        super().__init__(z_dim=z_dim, **own_networks(z_dim))
        self.bias = bias

    def forward(self, imgs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(imgs)


class TestOwnNetworks(InFolder):
    def train(self, model: VAE, **options: object) -> Path:
        train(self.folder, model, **options)
        return max(self.folder.glob("version_*"))

    def test_a_subclass_is_trained_tested_loaded_and_resumed_for_more_epochs(self):
        run = self.train(OwnVAE(z_dim=2, bias=0.5), epochs=1, pictures=True)
        for name in ("vae_manifold.png", "epoch_01_samples.png", "latent_means.png"):
            self.assertTrue((run / name).exists(), name)
        result = json.loads((run / "result.json").read_text())
        self.assertEqual(result["options"]["z_dim"], 2)
        loaded = load_model(run, OwnVAE)
        self.assertEqual((type(loaded), loaded.bias), (OwnVAE, 0.5))
        self.assertEqual(loaded.sample(3).shape, (3, 1, 28, 28))
        self.train(OwnVAE(z_dim=2, bias=0.5), resume=run, epochs=2)
        self.assertEqual(json.loads((run / "result.json").read_text())["options"]["epochs"], 2)

    def test_a_subclass_may_have_a_training_step_and_an_optimizer_of_its_own(self):
        class Plain(VAE):
            def training_step(self, batch, batch_idx):
                *_, bpd = self(batch[0])
                return bpd

            def configure_optimizers(self):
                optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
                return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

        run = self.train(Plain(num_filters=2, z_dim=2), epochs=1)
        self.assertEqual(type(load_model(run, Plain)), Plain)
        with open(run / "metrics.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        for part in PARTS:
            self.assertGreater(float(row[f"train_{part}"]), 0)

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

        run = self.train(Silent(np.float64(1e-3), np.float32(0.1)), epochs=1)
        self.assertIs(type(load_model(run, Silent).hparams.lr), float)

    def test_a_run_is_judged_in_eval_mode_and_leaves_its_statistics_alone(self):
        class Normed(nn.Sequential):
            def forward(self, x):
                return super().forward(x / 15).chunk(2, dim=1)

        def encoder() -> nn.Module:
            layers = nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)
            return Normed(nn.Flatten(), *layers)

        model = VAE(num_filters=2, z_dim=3, encoder=encoder())
        run = self.train(model, epochs=1)
        loaded = load_model(run, encoder=encoder())
        for own, saved in zip(model.encoder.buffers(), loaded.encoder.buffers(), strict=True):
            self.assertTrue(torch.equal(own, saved))

    def test_a_resumed_run_wants_the_model_that_it_began_with(self):
        run = self.train(VAE(num_filters=2, z_dim=2, temperature=0.5), epochs=1)
        with self.assertRaisesRegex(InputError, "--resume: .* another temperature: .*model="):
            self.train(VAE(num_filters=2, z_dim=2), resume=run, epochs=2)

    def test_networks_that_a_model_is_given_are_trained_and_loaded(self):
        run = self.train(VAE(z_dim=3, **own_networks(3)), epochs=1)
        loaded = load_model(run, **own_networks(3))
        self.assertEqual(loaded.encoder[1].out_features, 6)
        with self.assertRaisesRegex(InputError, "container.py:Sequential as encoder: .*--model"):
            load_model(run)

    def test_something_that_is_no_vae_is_refused_in_one_line(self):
        for model in (nn.Linear(2, 2), pl.LightningModule, "VAE", lambda: None):
            with self.assertRaisesRegex(InputError, "model: .* VAE"):
                self.train(model)


class TestBeta(InFolder):
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

    def test_a_run_and_its_report_say_beta_and_that_the_bounds_are_the_elbo(self):
        sentence = "trained with beta 4; all bounds are the ELBO's, where the KL has weight 1"
        options = {"num_filters": 2, "z_dim": 2, "epochs": 1, "batch_size": 50, "beta": 4}
        said = StringIO()
        train(self.folder, said=said, **options)
        run = self.folder / "version_0"
        self.assertEqual(said.getvalue().count(sentence), 1)
        self.assertEqual(json.loads((run / "result.json").read_text())["note"], sentence)
        model = load_model(run)
        self.assertEqual(model.hparams.beta, 4)
        self.assertEqual((beta_note(4), beta_note(1)), (sentence, ""))
        self.assertIn("beta 4", beta_words(model))
        self.assertRegex(in_training.epoch_line(1, torch.tensor(0.5), model), "ELBO.*beta 4")
        self.assertNotRegex(in_training.epoch_line(1, torch.tensor(0.5), VAE()), "ELBO|beta")

    def test_what_is_no_number_above_0_is_refused(self):
        for beta in (0, -1, math.nan, math.inf):
            with self.assertRaisesRegex(ValueError, "beta must be a number above 0"):
                VAE(beta=beta)
        for beta in ("0", "nan", "x"):
            with self.assertRaisesRegex(InputError, "--beta: .*above 0"):
                make_parser().parse_args(["--beta", beta])


class Losses(Callback):
    """Ends the training after two epochs; keeps its losses and learning rates."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        self.rates = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        self.bpd = {
            name: trainer.callback_metrics[f"{name}_bpd"].item() for name in ("train", "val")
        }
        trainer.should_stop = trainer.current_epoch == 1


class TestPrecision(InFolder):
    def test_half_weights_are_refused_in_one_line_and_mixed_precision_trains(self):
        tiny_model = {"num_filters": 2, "z_dim": 2, "batch_size": 50, "epochs": 1}
        for precision in ("16-true", "bf16-true", "transformer-engine"):
            with self.assertRaisesRegex(InputError, f"--precision: {precision} .*bf16-mixed$"):
                train(self.folder, precision=precision, **tiny_model)
        bpd = [train(self.folder, precision=p, **tiny_model) for p in ("32-true", "bf16-mixed")]
        self.assertAlmostEqual(bpd[0]["test_bpd"], bpd[1]["test_bpd"], delta=0.02)


class Clock(Timer):
    """Ten seconds, one for every step."""

    def __init__(self) -> None:
        super().__init__(timedelta(seconds=10), verbose=False)
        self.steps = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *batch: object, **more: object) -> None:
        self.steps = trainer.global_step
        super().on_train_batch_end(trainer, *batch, **more)

    def time_elapsed(self, stage: str = "train") -> float:
        return self.steps


class TestLimitedTime(unittest.TestCase):
    def test_the_learning_rate_rises_and_falls_within_the_time_whatever_the_epochs_are(self):
        for epochs in (1000, -1):
            losses = Losses()
            fit(losses, Clock(), batch_size=50, max_epochs=epochs)
            self.assertEqual(len(losses.rates), 10)
            self.assertGreater(max(losses.rates), 1.9e-3)
            self.assertLess(losses.rates[-1], 2.2e-3 / 5)


class TestEndlessTraining(unittest.TestCase):
    def test_without_a_last_epoch_the_learning_rate_is_constant_and_the_model_learns(self):
        losses = Losses()
        fit(losses, batch_size=20, max_epochs=-1)
        self.assertEqual(set(losses.rates), {2.2e-3})
        self.assertEqual(len(losses.rates), 30)
        self.assertLess(losses.bpd["val"], math.log2(16) - 1)


class TestTinyData(unittest.TestCase):
    def test_the_tests_train_on_real_images(self):
        with tiny_data():
            train, val = fmnist.split(fmnist.load(fmnist.DATA_DIR))
        self.assertEqual((len(train), len(val)), (NUM_TRAIN, NUM_VAL))
        self.assertGreater(train.images.float().mean(), 1)
