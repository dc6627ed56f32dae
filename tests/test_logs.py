"""What a run writes about itself: TensorBoard's pages, metrics.csv, result.json, other loggers."""

import argparse
import csv
import json
import re
import tempfile
import unittest
from contextlib import redirect_stdout
from importlib import metadata
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from crash_test import curves
from matplotlib.colors import to_rgb
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny import NUM_TEST, NUM_TRAIN, InFolder, tiny_data

import fmnist
import train_pl
from judging.samples import judge_run, load_classifier
from pictures.figures import CLASS_COLOURS, losses_figure
from runs.tensorboard import CHARTS
from runs.trainer import quiet_lightning
from train_pl import VAE, load_model, make_parser, train_vae

SMALL = {"num_filters": 4, "z_dim": 3, "accelerator": "cpu"}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(table: list[dict[str, str]], name: str) -> list[float]:
    """The cells of a column that are not empty."""
    return [float(row[name]) for row in table if row[name]]


class TestPages(unittest.TestCase):
    """One run of two epochs of 50 steps."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.epochs, cls.steps = 2, NUM_TRAIN // 6
        args = argparse.Namespace(
            **SMALL, batch_size=6, epochs=cls.epochs, lr=1e-3, log_dir=temporary.name
        )
        with tiny_data(), redirect_stdout(StringIO()):
            (cls.test,) = train_vae(args)
        cls.folder = Path(temporary.name, "version_0")
        cls.curves = curves(cls.folder)
        cls.ends = [cls.steps * epoch - 1 for epoch in range(1, cls.epochs + 1)]

    def test_the_first_page_opens_on_the_bits_per_dimension_and_the_pictures(self):
        groups = {tag.removeprefix("picture ").split("/")[0] for tag in self.curves}
        self.assertEqual(sorted(groups)[:2], ["bpd", "images"])  # TensorBoard opens two

    def test_what_is_logged_keeps_its_name_beside_the_first_page(self):
        self.assertEqual(self.curves["bpd/val"], self.curves["val_bpd"])
        self.assertEqual(self.curves["bpd/val_prior"], self.curves["val_prior_bpd"])
        for tag in ("bpd/train", "nats/train_reconstruction", "nats/train_KL"):
            self.assertEqual([step for step, _ in self.curves[tag]], [49, 99])
        self.assertEqual(self.curves["nats/val_KL"], self.curves["val_regularization_loss"])

    def test_every_chart_of_the_layout_has_its_curves(self):
        (layout,) = (
            Layout.FromString(
                events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
            )
            for events in map(EventAccumulator, map(str, self.folder.glob("*.tfevents.*")))
            if events.Reload() and "custom_scalars__config__" in events.Tags()["tensors"]
        )
        charts = layout.category[0].chart
        self.assertEqual([chart.title for chart in charts], list(CHARTS))
        self.assertIn("training and validation", charts[0].title)
        for chart in charts:
            shown = {tag for tag in self.curves for r in chart.multiline.tag if re.match(r, tag)}
            self.assertEqual(len(shown), 2, (chart.title, shown))

    def test_pictures_and_curves_have_one_axis(self):
        self.assertEqual([step for step, _ in self.curves["val_bpd"]], self.ends)
        for tag in ("picture images/Samples", "picture images/KL per dimension"):
            self.assertEqual([step for step, _ in self.curves[tag]], [0, *self.ends], tag)
        steps = [step for step, _ in self.curves["val_active_units"]]
        self.assertEqual(steps, [0, *self.ends])

    def test_the_latent_means_are_at_the_step_of_the_model_that_they_are_of(self):
        best = min(self.curves["val_bpd"], key=lambda point: point[1])[0]
        self.assertEqual([step for step, _ in self.curves["picture images/Latent means"]], [best])

    def test_the_projectors_pictures_have_the_colours_of_their_classes(self):
        labels = (self.folder / "projector" / "metadata.tsv").read_text().split()
        with Image.open(self.folder / "projector" / "sprite.png") as picture:
            sprite = np.array(picture)
        for n, label in enumerate(labels):
            y, x = 28 * (n // 7), 28 * (n % 7)  # 40 images in rows of 7
            ink = sprite[y : y + 28, x : x + 28, :3].reshape(-1, 3)
            colour = np.array(to_rgb(CLASS_COLOURS[int(label)]))
            np.testing.assert_allclose(ink / 255, np.broadcast_to(colour, ink.shape), atol=1 / 255)
        self.assertTrue(0 < sprite[..., 3].mean() < 128)  # the paper is transparent

    def test_hparams_begins_with_size_seed_and_the_bits_of_the_test(self):
        events = EventAccumulator(str(self.folder))
        events.Reload()
        content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
        experiment = HParamsPluginData.FromString(content).experiment
        first = {info.name for info in experiment.hparam_infos if info.differs}
        self.assertEqual(first, {"z_dim", "seed"})  # TensorBoard shows first what differs
        self.assertEqual(experiment.metric_infos[0].name.tag, "test_bpd")

    def test_an_undisturbed_run_has_an_event_file_of_its_training_and_one_of_its_result(self):
        suffixes = sorted(file.suffix == ".result" for file in self.folder.glob("*.tfevents.*"))
        self.assertEqual(suffixes, [False, True])
        self.assertEqual(len(self.curves["test_bpd"]), 1)

    def test_the_curves_of_the_losses_are_a_picture_too(self):
        with Image.open(self.folder / "losses.png") as picture:
            self.assertGreater(picture.size[0], 1000)
        table = rows(self.folder / "metrics.csv")
        panels = losses_figure(table).axes
        shown = [[line.get_ydata()[-1] for line in axes.lines] for axes in panels]
        parts = ("reconstruction_loss", "regularization_loss", "bpd")
        expected = [[float(table[-1][f"{s}_{part}"]) for s in ("train", "val")] for part in parts]
        expected[2].append(float(table[-1]["val_prior_bpd"]))
        self.assertEqual(shown, expected)

    def test_metrics_csv_has_a_row_per_epoch_with_the_figures_of_the_curves(self):
        table = rows(self.folder / "metrics.csv")
        self.assertEqual(column(table, "epoch"), [1, 2])
        self.assertEqual(column(table, "step"), self.ends)
        seconds = column(table, "seconds")
        self.assertTrue(0 < seconds[0] < seconds[1])
        parts = ("bpd", "ELBO", "reconstruction_loss", "regularization_loss")
        names = {f"{stage}_{part}" for stage in ("train", "val") for part in parts}
        self.assertEqual(table[0].keys(), {"epoch", "step", "seconds", "val_prior_bpd", *names})
        for name in names:
            for found, (_, logged) in zip(column(table, name), self.curves[name], strict=True):
                self.assertAlmostEqual(found, logged, delta=1e-5 * abs(logged))

    def test_result_json_has_all_options_versions_parameters_and_both_bounds_with_their_parts(self):
        result = json.loads((self.folder / "result.json").read_text())
        for name, value in self.test.items():
            self.assertEqual(result[name], value)
        defaults = vars(make_parser().parse_args([]))
        self.assertEqual(result["options"].keys(), defaults.keys() - {"log_dir", "resume"})
        self.assertEqual(result["options"]["num_filters"], 4)
        self.assertEqual(result["options"]["precision"], defaults["precision"])
        for bound in ("test", "test_prior"):
            parts = result["test_reconstruction_loss"] + result[f"{bound}_regularization_loss"]
            self.assertAlmostEqual(parts, result[f"{bound}_ELBO"], delta=1e-2)
            bpd = parts / 784 / torch.tensor(2.0).log().item()
            self.assertAlmostEqual(bpd, result[f"{bound}_bpd"], delta=1e-4)
        model = load_model(self.folder)
        self.assertEqual(
            sum(result["parameters"].values()), sum(p.numel() for p in model.parameters())
        )
        self.assertEqual(result["versions"]["torch"], torch.__version__)
        self.assertEqual(result["versions"]["tensorboard"], metadata.version("tensorboard"))
        self.assertTrue(result["machine"]["processor"])
        self.assertEqual(
            self.ends[result["best_epoch"] - 1], self.curves["picture images/Latent means"][0][0]
        )
        self.assertGreater(result["seconds"], 0)

    def test_result_json_says_how_good_samples_of_each_kind_are(self):
        samples = json.loads((self.folder / "result.json").read_text())["samples"]
        self.assertEqual(samples.pop("of_each_kind"), NUM_TEST)
        self.assertEqual(samples.pop("temperature"), VAE().hparams.temperature)
        kinds = {"training_images", "posterior_samples", "unit_gaussian"}
        kinds |= {"learned_prior", "learned_prior_by_class"}
        self.assertEqual(samples.keys(), kinds)
        for kind in samples.values():
            self.assertTrue(0 <= kind["sure"] <= 1)
        self.assertTrue(0 <= samples["learned_prior_by_class"]["right_class"] <= 1)
        with tiny_data():
            train, _ = fmnist.split(fmnist.load(fmnist.DATA_DIR))
            test = fmnist.load(fmnist.DATA_DIR, train=False)
        how = (load_classifier(), train, test, make_parser().parse_args([]).seed)
        again = judge_run(load_model(self.folder), *how)
        self.assertEqual({kind: again[kind] for kind in kinds}, samples)

    def test_hparams_yaml_has_all_options(self):
        text = (self.folder / "hparams.yaml").read_text()
        options = json.loads((self.folder / "result.json").read_text())["options"]
        names = {line.partition(":")[0] for line in text.splitlines() if not line.startswith(" ")}
        self.assertLessEqual(options.keys(), names)

    def test_load_model_takes_the_folder_of_a_run(self):
        (best,) = self.folder.glob("checkpoints/best*")
        for one, other in zip(
            load_model(self.folder).parameters(), load_model(best).parameters(), strict=True
        ):
            self.assertTrue(torch.equal(one, other))


class TestWithinTheEpoch(InFolder):
    def test_a_point_is_the_mean_since_the_last_one_or_since_the_epoch_began(self):
        losses, terms = [], VAE.elbo_terms

        class Recorded(VAE):
            def elbo_terms(self, imgs):
                found = terms(self, imgs)
                if self.training:
                    losses.append((found[0] + found[1]).mean().item())
                return found

        quiet_lightning()
        trainer = pl.Trainer(
            **{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 4},
            **{"logger": CSVLogger(self.folder, name=None), "enable_checkpointing": False},
            **{"enable_progress_bar": False, "enable_model_summary": False},
            num_sanity_val_steps=0,
        )
        with tiny_data():
            data = fmnist.MNISTDataModule(batch_size=NUM_TRAIN // 6)
            trainer.fit(Recorded(num_filters=2, z_dim=2, lr=1e-3), datamodule=data)
        table = [
            row for row in rows(self.folder / "version_0/metrics.csv") if row["train_bpd_step"]
        ]
        self.assertEqual(column(table, "step"), [3, 7, 11])
        nats = torch.tensor(losses)
        means = torch.stack([nats[:4].mean(), nats[6:8].mean(), nats[8:12].mean()])
        expected = means / 784 / torch.tensor(2.0).log()
        found = torch.tensor(column(table, "train_bpd_step"))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


class TestCallers(InFolder):
    def train(self, **how: object) -> tuple[dict[str, float], str]:
        """The test result and the output of a run of one epoch of 50 steps."""
        options = argparse.Namespace(**SMALL, batch_size=6, epochs=1, log_dir=self.folder / "logs")
        with tiny_data(), redirect_stdout(StringIO()) as output:
            (test,) = train_vae(options, **how)
        return test, output.getvalue()

    def test_callbacks_are_added_and_a_csv_logger_takes_the_place_of_tensorboards(self):
        seen = []
        report = pl.callbacks.LambdaCallback(
            on_train_epoch_end=lambda trainer, model: seen.append(
                (trainer.logger, trainer.callback_metrics["val_bpd"].item())
            )
        )
        logger = CSVLogger(self.folder, name="csv")
        test, output = self.train(callbacks=[report], logger=logger)
        table = rows(self.folder / "csv/version_0/metrics.csv")
        self.assertEqual([logged for logged, _ in seen], [logger])
        self.assertAlmostEqual(column(table, "val_bpd")[0], seen[0][1], places=4)
        self.assertEqual(column(table, "test_bpd"), [test["test_bpd"]])
        for name in ("train_bpd", "train_bpd_step", "val_prior_bpd", "lr-Muon/prior", "epoch"):
            self.assertTrue(column(table, name), name)
        self.assertEqual(len(column(table, "val_active_units")), 2)
        self.assertEqual(len(column(table, "test_active_units")), 1)
        settings = (self.folder / "csv/version_0/hparams.yaml").read_text()
        self.assertIn("precision: 32-true", settings)
        run = self.folder / "logs/version_0"
        self.assertEqual(list(run.glob("*tfevents*")), [])
        names = ("metrics.csv", "result.json", "epoch_1_samples.png", "latent_means.png")
        for name in names:
            self.assertTrue((run / name).exists(), name)
        self.assertTrue(load_model(run))
        self.assertIn(str(run), output)
        self.assertNotIn("tensorboard", output.lower())

    def test_several_loggers_get_the_same_figures(self):
        board = TensorBoardLogger(self.folder, name="board", version=0)
        with mock.patch.object(train_pl, "CLASSIFIER", self.folder / "not there"):
            _, output = self.train(logger=[CSVLogger(self.folder, name="csv"), board])
        self.assertNotIn("samples", (self.folder / "logs/version_0/result.json").read_text())
        table = rows(self.folder / "csv/version_0/metrics.csv")
        shown = curves(self.folder / "board/version_0")
        for name in ("val_bpd", "train_bpd_step", "test_prior_bpd"):
            self.assertAlmostEqual(column(table, name)[0], shown[name][0][1], places=4)
        self.assertIn("picture images/Samples", shown)
        self.assertIn(f"tensorboard --logdir {self.folder}", output)

    def test_no_logger_at_all_is_refused_with_the_remedy(self):
        with self.assertRaisesRegex(ValueError, "logger: give at least one, or None"):
            self.train(logger=[])

    def test_a_run_with_another_logger_is_resumed_with_another_logger(self):
        stop = pl.callbacks.LambdaCallback(on_test_start=self.interrupt)
        with self.assertRaises(RuntimeError):
            self.train(callbacks=[stop], logger=CSVLogger(self.folder, name="first"))
        args = argparse.Namespace(resume=self.folder / "logs/version_0")
        with tiny_data(), redirect_stdout(StringIO()):
            (test,) = train_vae(args, logger=CSVLogger(self.folder, name="second"))
        table = rows(self.folder / "second/version_0/metrics.csv")
        self.assertEqual(column(table, "test_bpd"), [test["test_bpd"]])
        self.assertEqual(len(rows(self.folder / "logs/version_0/metrics.csv")), 1)

    def interrupt(self, *_: object) -> None:
        raise RuntimeError


if __name__ == "__main__":
    unittest.main()
