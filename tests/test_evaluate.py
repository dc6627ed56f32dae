"""evaluate.py: the numbers of its report, its pictures, and input that nobody should trust."""

import bz2
import json
import math
import os
import shutil
import tempfile
import unittest
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from matplotlib.image import imread
from photos import photo
from PIL import Image
from tiny import (
    InFolder,
    prepare,
    random_model,
    rows,
    run_command,
    save_model,
    tiny_data,
    undrawn,
    whole,
)

import evaluate
import fmnist
from inputs.command_line import InputError, OneLineParser, run_main
from judging.bounds import BOUNDS, image_bounds
from judging.handwriting import read_pictures
from judging.report import SAMPLES
from judging.samples import CLASSIFIED_DATASET, WITHOUT_LABELS
from pictures.figures import rendered
from train_pl import PRETRAINED, VAE, load_model
from utils import active_units

OF_EVERY_MODEL = {
    *("samples", "reconstructions", "interpolations", "traversals"),
    *("kl_per_dimension", "nearest_training_images"),
}


def run_evaluate(checkpoint: Path, output: Path, *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and complaints, on few images."""
    to = ("--output", output, "--accelerator", "cpu")
    with tiny_data():
        return run_command(evaluate.main, checkpoint, *to, *arguments)


def read_metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


class TestReport(unittest.TestCase):
    """One report with all that it can have."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.checkpoint, cls.output = cls.folder / "model.ckpt", cls.folder / "report"
        cls.scores = cls.folder / "scores.csv"
        save_model(random_model(num_filters=4, z_dim=2), cls.checkpoint)
        few = ("--limit", 30, "--iwae_samples", 2, "--per_image", cls.scores, "--progress_bar")
        small = mock.Mock(side_effect=lambda figure: (figure.set_dpi(30), rendered(figure))[1])
        with mock.patch("judging.report.rendered", small):
            code, cls.said, error = run_evaluate(cls.checkpoint, cls.output, *few)
        assert code == 0, error
        cls.metrics = read_metrics(cls.output)

    def test_numbers_are_means_over_the_images_with_their_standard_errors(self):
        metrics, data, table = self.metrics, whole(train=False).first(30), rows(self.scores)
        self.assertEqual([row["index"] for row in table], [str(number) for number in range(30)])
        self.assertEqual([int(row["label"]) for row in table], data.labels.tolist())
        bounds = image_bounds(load_model(self.checkpoint), data.images, num_samples=2)
        for name in ("reconstruction", "kl", *BOUNDS):
            scores = torch.tensor([float(row[f"{name}_nats"]) for row in table])
            torch.testing.assert_close(scores, bounds[name], rtol=0, atol=2e-3)
            mean, error = metrics[f"{name}_nats"].values()
            self.assertAlmostEqual(mean, bounds[name].mean().item(), places=3)
            self.assertAlmostEqual(error, bounds[name].std().item() / math.sqrt(30), places=4)
        total = sum(metrics["kl_per_dimension_nats"])
        self.assertAlmostEqual(total, metrics["kl_nats"]["mean"], places=3)
        self.assertEqual(metrics["images"], 30)
        size = len(bz2.compress(data.images.numpy()))
        self.assertEqual(metrics["codec_bpd"], {"bz2": 8 * size / 23520})

    def test_it_has_every_picture(self):
        found = {file.stem: imread(file) for file in self.output.glob("*.png")}
        self.assertEqual(set(found), OF_EVERY_MODEL | {"latent_means", "manifold"})
        for name, picture in found.items():
            self.assertGreater(picture[..., :3].std(), 0.01, name)

    def test_all_numbers_stand_in_the_table(self):
        for words in (
            "30 images, MNIST test",
            "does not say what it was trained on\n",
            "importance-weighted, K = 2",
            "active units",
            "a general codec",
            "Fréchet distance: from 1,000 images on\n",
            f"T = {VAE().hparams.temperature:g}",
        ):
            self.assertIn(words, self.said)
        of_others = evaluate.table({**self.metrics, "trained_on": "FashionMNIST"})
        self.assertIn("on other images, those of FashionMNIST\n", of_others)
        for name in SAMPLES:
            judged = self.metrics["samples"][name]
            self.assertIn(f"{'-':>16}{judged['sure']:9.3f}", self.said)
            self.assertEqual(judged["right_class"] is None, name in WITHOUT_LABELS, name)
        self.assertEqual(self.metrics["samples"]["of_each_kind"], 30)
        self.assertGreater(self.metrics["samples"]["training_images"]["right_class"], 0.9)
        for name in ("test_images", "samples", "posterior_samples"):
            mean, error = self.metrics["nearest_training_image"][name].values()
            self.assertIn(f"{mean:.1f} ± {error:.1f}", self.said)
        train, test = self.metrics["log_prior_train_nats"], self.metrics["log_prior_nats"]
        apart = train["mean"] - test["mean"]
        self.assertRegex(self.said, rf"log p\(z\), training - test +{apart:.2f} ±")

    def test_that_of_zeros_and_one_image_has_four_bpd_by_all_bounds_and_takes_its_place(self):
        output = shutil.copytree(self.output, self.folder / "second")
        model = VAE(num_filters=2, z_dim=1)
        zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        path = save_model(model, self.folder / "zeros.ckpt", state_dict=zeros)
        few = ("--iwae_samples", 1, "--limit", 1, "--split", "val")
        with mock.patch.object(evaluate, "CLASSIFIED_DATASET", "another"), undrawn():
            code, said, error = run_evaluate(path, output, *few)
        self.assertEqual(code, 0, error)
        self.assertIn("1 images, MNIST val", said)
        self.assertIn("in place of the report that was there", said)
        self.assertEqual({file.stem for file in output.glob("*.png")}, OF_EVERY_MODEL)
        metrics = read_metrics(output)
        for name in BOUNDS:
            mean, error = metrics[f"{name}_bpd"].values()
            self.assertAlmostEqual(mean, 4.0, delta=1e-5)
            self.assertIsNone(error)
        self.assertEqual(metrics["active_units"], 0)
        # Images that the classifier does not know are compared with the nearest only.
        self.assertIn(CLASSIFIED_DATASET, fmnist.DATASETS)
        self.assertNotIn("samples", metrics)
        self.assertNotIn("classifier", said)
        self.assertIn("nearest training image", said)

    def test_an_output_of_ascii_only_shows_the_numbers(self):
        output = TextIOWrapper(BytesIO(), encoding="ascii")
        with redirect_stdout(output):
            run_main(OneLineParser("x"), lambda _: print("274.90 ± 0.65"), [])
        self.assertEqual(output.buffer.getvalue(), b"274.90 ? 0.65\n")


class TestOwnHandwriting(InFolder):
    def test_each_thing_in_ones_pictures_has_its_class_bits_and_nearest_training_image(self):
        """The shipped model, and test images as somebody would photograph their own."""
        pictures, output, data = self.folder / "mine", self.folder / "report", whole(train=False)
        (pictures / "more").mkdir(parents=True)
        names = ("RGB.png", "more/L.png", "more/RGBA.png")
        for image, name in zip(data.images, names, strict=False):  # dark ink on light paper
            picture = Image.fromarray(255 - 17 * image[0].numpy()).resize((300, 300))
            picture.convert(Path(name).stem).save(pictures / name)
        for number, kind in ((22, "two"), (19, "wedge")):
            Image.fromarray(photo(number, kind)).save(pictures / f"{kind}.png")
        noise = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
        Image.fromarray(noise).save(pictures / "as it is.png")
        (pictures / "damaged.jpg").write_bytes(b"no picture")
        to = ("--output", output, "--accelerator", "cpu", "--iwae_samples", 1)
        with ExitStack() as few:
            some = {"load": lambda *how: whole(*how).first(4000), "NUM_TRAIN": 3900}
            few.enter_context(mock.patch.multiple(fmnist, prepare=prepare, NUM_VAL=100, **some))
            few.enter_context(mock.patch("judging.handwriting.NUM_USUAL", 50))
            code, said, error = run_command(evaluate.main, PRETRAINED, "--images", pictures, *to)
            self.assertEqual(code, 0, error)
            table = {(row["file"], row["thing"]): row for row in rows(output / "pictures.csv")}
            self.assertGreater(imread(output / "pictures.png")[..., :3].std(), 0.1)
            # Another one takes its place, and a full disk behind the output costs only a line.
            few.enter_context(redirect_stdout(few.enter_context(open("/dev/full", "w"))))
            complaint = few.enter_context(redirect_stderr(StringIO()))
            with self.assertRaises(SystemExit) as stop, undrawn():
                again = [PRETRAINED, "--images", pictures / "as it is.png", *to]
                evaluate.main([str(argument) for argument in again])
        self.assert_ends((stop.exception.code, complaint.getvalue()), 1, "No space left")
        self.assertEqual(len(rows(output / "pictures.csv")), 1)
        self.assertEqual({f.name for f in output.iterdir()}, {"pictures.csv", "pictures.png"})
        self.assertRegex(said, r"7 things in pictures, \d+ bits each .* test images have \d+")
        self.assertIn("left out: 1 (damaged.jpg (", said)
        self.assertIn("several things in one picture, each taken for itself: 1 (two.png)", said)
        digits = {"RGB.png": 7, "more/L.png": 2, "more/RGBA.png": 1, "two.png": 6, "wedge.png": 4}
        things = [(name, "1") for name in ("RGB.png", "as it is.png", "two.png", "wedge.png")]
        things[3:3] = [("two.png", "2")]
        self.assertEqual([*table], [*things, *((name, "1") for name in names[1:])])
        for (name, thing), row in table.items():
            bits = float(row["negative_elbo_prior_nats"]) / math.log(2)
            self.assertAlmostEqual(float(row["bits"]), bits, places=3)
            if name == "as it is.png":
                self.assertEqual((row["unusual"], row["bits_percentile"]), ("True", "100.0000"))
                continue
            expected = str(5 if thing == "2" else digits[name])
            self.assertEqual((row["class"], row["nearest_class"]), (expected, expected), name)
            self.assertEqual(row["unusual"], "False", name)
            self.assertTrue(100 < bits < 1200, bits)

    def test_what_is_no_picture_is_refused_by_name_in_one_line(self):
        blank, note, empty = self.folder / "blank.png", self.folder / "note.txt", self.folder / "e"
        Image.new("L", (50, 50), 255).save(blank)
        note.write_text("no picture")
        empty.mkdir()
        for path, words in (
            (empty, "no pictures in "),
            (self.folder / "nowhere", r"nowhere \(No such file"),
            (note, r"note.txt \("),
            (blank, r"blank.png \(no strokes"),
        ):
            with self.assertRaisesRegex(InputError, f"^argument --images: .*{words}.*$"):
                read_pictures([path], {})


class TestDataSet(InFolder):
    def test_a_model_is_judged_on_the_images_of_its_training_or_on_those_of_an_option(self):
        record = {"dataset": "FashionMNIST"}
        path = self.folder / "model.ckpt"
        save_model(random_model(), path, datamodule_hyper_parameters=record)
        for arguments, name in (((), "FashionMNIST"), (("--dataset", "MNIST"), "MNIST")):
            with (
                mock.patch("tiny.prepare") as prepared,
                mock.patch.object(fmnist.MNISTDataModule, "read", lambda data: [data.dataset] * 3),
                mock.patch.object(evaluate, "evaluate_split") as judged,
            ):
                run_evaluate(path, self.folder / "report", *arguments)
            sets = judged.call_args.args[3]
            self.assertEqual(sets, (name, record["dataset"], *[name] * 3))
            self.assertEqual(prepared.call_args.args[1], name)


class TestShippedModel(unittest.TestCase):
    def test_its_bound_is_that_of_its_metrics_on_the_first_images_too(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        bounds = image_bounds(load_model(PRETRAINED), whole(train=False).images[:200], 1)
        for name in ("negative_elbo", "negative_elbo_prior", "kl"):
            mean, error = metrics[f"{name}_nats"].values()
            # The error is that of 10,000 images: of 200 it is 7 times as large.
            self.assertAlmostEqual(bounds[name].mean().item(), mean, delta=15 * error)
        self.assertEqual(active_units(bounds["mean"]), metrics["active_units"])

    def test_holds_weights_and_hyperparameters_only(self):
        content = torch.load(PRETRAINED, weights_only=True)
        self.assertEqual(set(content["state_dict"]), set(VAE().state_dict()))
        self.assertFalse({"optimizer_states", "callbacks", "run"} & set(content))
        self.assertLess(PRETRAINED.stat().st_size, 6e6)


class TestBadInput(InFolder):
    """All of it ends with one line, before any output."""

    def setUp(self):
        super().setUp()
        self.checkpoint = save_model(random_model(), self.folder / "model.ckpt")
        self.enterContext(mock.patch.dict(os.environ, https_proxy="127.0.0.1:9"))  # no download

    def test_values_that_make_no_sense_are_refused_by_name(self):
        mine, damaged = self.folder / "mine.npz", self.folder / "damaged.ckpt"
        mine.write_bytes(b"images of somebody's own")
        damaged.write_bytes(self.checkpoint.read_bytes()[:-1000])
        before, accelerator = sorted(self.folder.iterdir()), "--accelerator"
        absent = "mps" if torch.cuda.is_available() else "cuda"
        for said, checkpoint, *options in (
            ("damaged.ckpt", damaged),
            ("missing.ckpt", self.folder / "missing.ckpt"),
            ("log directory", self.folder),
            *(("'-1'", self.checkpoint, name, -1) for name in ("--iwae_samples", "--limit")),
            ("'-1'", self.checkpoint, "--seed", -1),
            ("'0'", self.checkpoint, "--batch_size", 0),
            ("'all'", self.checkpoint, "--split", "all"),
            ("'another'", self.checkpoint, "--dataset", "another"),
            ("'abacus' cannot be used: choose cpu", self.checkpoint, accelerator, "abacus"),
            *(("cannot be used", self.checkpoint, accelerator, name) for name in ("", absent)),
            ("model.ckpt", self.checkpoint, "--output", self.checkpoint / "report"),
            ("nowhere", self.checkpoint, "--data_dir", self.folder / "nowhere"),
            ("model.ckpt", self.checkpoint, "--per_image", self.checkpoint / "scores.csv"),
            ("is a folder", self.checkpoint, "--per_image", self.folder),
            ("mine.npz is a file of yours", self.checkpoint, "--per_image", mine),
        ):
            with self.subTest(options or checkpoint):
                to = ("--output", self.folder / "report", accelerator, "cpu")
                self.assert_refused(evaluate.main, [checkpoint, *to, *options], said, *options[:1])
                self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_a_folder_with_other_files_than_a_reports_keeps_them(self):
        run = self.folder / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        self.checkpoint.rename(run / "checkpoints" / "best_val_bpd_0.5000.ckpt")
        (run / "latent_means.png").write_text("the run's own")
        self.assert_refused(evaluate.main, [run, "--output", run], "version_0 has other files")
        self.assertEqual((run / "latent_means.png").read_text(), "the run's own")
        self.assertEqual(len([*run.iterdir()]), 2)
