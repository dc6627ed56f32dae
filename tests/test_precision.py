"""Each precision of Lightning's trains as well as float32, or is refused in one line."""

import argparse
import math
import unittest
import warnings
from contextlib import redirect_stdout
from io import StringIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tiny import InFolder, tiny_data

import fmnist
from boundary.command_line import InputError
from runs.trainer import quiet_lightning
from train_pl import VAE, train_vae

HALF_WEIGHTS = {"16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"}


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


def fit(**settings: object) -> Losses:
    """Two epochs on the tiny data without train_vae, which refuses some precisions."""
    quiet_lightning()
    pl.seed_everything(0, verbose=False)
    losses = Losses()
    trainer = pl.Trainer(
        **{"max_epochs": 2, **settings},
        accelerator="cpu",
        logger=False,
        callbacks=[losses],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with tiny_data():
        trainer.fit(VAE(num_filters=4, z_dim=3), datamodule=fmnist.MNISTDataModule(batch_size=20))
    return losses


class TestPrecision(InFolder):
    def test_every_precision_reaches_the_loss_of_float32_or_is_refused_in_one_line(self):
        def train(precision: str) -> float:
            args = {"num_filters": 4, "z_dim": 3, "batch_size": 20, "epochs": 1, "seed": 1}
            args |= {"precision": precision, "log_dir": str(self.folder), "accelerator": "cpu"}
            with tiny_data(), redirect_stdout(StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # 16-mixed is bf16-mixed on a CPU
                (test,) = train_vae(argparse.Namespace(**args))
            return test["test_bpd"]

        reference, refused = train("32-true"), set()
        for precision in ("64-true", "bf16-mixed", "16-mixed", *sorted(HALF_WEIGHTS)):
            try:
                # float64 draws other noise: its steps are as good, not the same.
                delta = 0.05 if precision == "64-true" else 0.01
                self.assertAlmostEqual(train(precision), reference, delta=delta, msg=precision)
            except InputError as error:
                self.assertRegex(str(error), f"--precision: {precision} .*bf16-mixed$")
                self.assertNotIn("\n", str(error))
                refused.add(precision)
        self.assertEqual(refused, HALF_WEIGHTS)

    def test_an_own_trainer_with_half_weights_keeps_finite_losses(self):
        reference = fit().bpd
        for precision in ("bf16-true", "16-true"):
            for stage, bpd in fit(precision=precision).bpd.items():
                self.assertAlmostEqual(bpd, reference[stage], delta=0.3, msg=(precision, stage))


class TestEndlessTraining(unittest.TestCase):
    def test_without_a_last_epoch_the_learning_rate_is_constant_and_the_model_learns(self):
        losses = fit(max_epochs=-1)
        self.assertEqual(set(losses.rates), {2.2e-3})
        self.assertEqual(len(losses.rates), 30)
        self.assertLess(losses.bpd["val"], math.log2(16) - 1)


if __name__ == "__main__":
    torch.manual_seed(0)
    unittest.main()
