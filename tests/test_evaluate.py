"""evaluate.py: the numbers of its report, its pictures, and input that nobody should trust."""

import csv
import json
import math
import os
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from unittest import mock

import torch
from matplotlib.image import imread
from PIL import Image
from tiny import InFolder, save_model, tiny_data

import evaluate
import fmnist
import train_pl
from boundary.command_line import InputError
from compression.general_codecs import codec_bytes
from judging.bounds import BOUNDS, image_bounds
from judging.report import SAMPLES
from judging.samples import CLASSIFIED_DATASET, WITHOUT_LABELS
from train_pl import PRETRAINED, VAE, load_model
from utils import active_units, elbo_to_bpd

OF_EVERY_MODEL = {
    *("samples", "reconstructions", "interpolations", "traversals"),
    *("kl_per_dimension", "nearest_training_images"),
}


def write_checkpoint(path: Path, **sizes: int) -> VAE:
    """A checkpoint as train_pl.py leaves it, of random weights, those of the prior too."""
    torch.manual_seed(0)
    model = VAE(**{"num_filters": 4, "z_dim": 3, **sizes})
    torch.nn.init.normal_(model.prior.middle.weight, std=0.05)
    save_model(model, path)
    return model


class EvaluateTest(InFolder):
    few = ("--iwae_samples", 1, "--limit", 12)

    def setUp(self):
        super().setUp()
        self.checkpoint = self.folder / "model.ckpt"
        self.output = self.folder / "report"

    def command(self, *arguments: object) -> list[str]:
        given = (self.checkpoint, "--output", self.output, "--accelerator", "cpu", *arguments)
        return [str(word) for word in given]

    def run_it(self, *arguments: object) -> dict:
        """The metrics that were written; what was printed is in `said`."""
        with tiny_data(), redirect_stdout(StringIO()) as said:
            evaluate.main(self.command(*arguments))
        self.said = said.getvalue()
        return json.loads((self.output / "metrics.json").read_text())

    def rewrite(self, **content: object) -> None:
        """Other content in the checkpoint."""
        whole = torch.load(self.checkpoint, weights_only=True)
        torch.save({**whole, **content}, self.checkpoint)


class TestReport(EvaluateTest):
    def test_a_model_of_zeros_has_four_bpd_by_all_bounds(self):
        model = write_checkpoint(self.checkpoint)
        zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        self.rewrite(state_dict=zeros)
        metrics = self.run_it("--iwae_samples", 3)
        for name in ("negative_elbo_bpd", "importance_weighted_bpd"):
            for bpd in (metrics[name], metrics[name.replace("_bpd", "_prior_bpd")]):
                self.assertAlmostEqual(bpd["mean"], 4.0, delta=1e-5)
                self.assertAlmostEqual(bpd["standard_error"], 0.0, delta=1e-5)
        self.assertEqual(metrics["active_units"], 0)

    def test_the_same_seed_gives_the_same_numbers_whatever_the_batch_size(self):
        write_checkpoint(self.checkpoint)
        first, second, other = (
            self.run_it("--iwae_samples", 9, "--batch_size", size, "--seed", seed)
            for size, seed in ((40, 1), (7, 1), (7, 2))
        )
        for name in ("negative_elbo_bpd", "importance_weighted_bpd"):
            self.assertAlmostEqual(first[name]["mean"], second[name]["mean"], delta=1e-6)
            self.assertNotAlmostEqual(first[name]["mean"], other[name]["mean"], delta=1e-6)
        self.assertEqual(first["codec_bpd"], second["codec_bpd"])
        self.assertEqual(first["nearest_training_image"], second["nearest_training_image"])
        self.assertNotEqual(first["nearest_training_image"], other["nearest_training_image"])

    def test_numbers_are_means_over_the_images_with_their_standard_errors(self):
        write_checkpoint(self.checkpoint)
        metrics = self.run_it("--limit", 30, "--iwae_samples", 2)
        images = fmnist.load(train=False).images[:30]
        bounds = image_bounds(load_model(self.checkpoint), images, num_samples=2)
        for name in ("negative_elbo", "kl", "importance_weighted", "negative_elbo_prior"):
            mean, error = metrics[f"{name}_nats"].values()
            self.assertAlmostEqual(mean, bounds[name].mean().item(), places=3)
            self.assertAlmostEqual(error, bounds[name].std().item() / math.sqrt(30), places=4)
        nats = metrics["importance_weighted_bpd"]["mean"] * 784 * math.log(2)
        self.assertAlmostEqual(metrics["importance_weighted_nats"]["mean"], nats, places=2)
        total = sum(metrics["kl_per_dimension_nats"])
        self.assertAlmostEqual(total, metrics["kl_nats"]["mean"], places=3)
        self.assertEqual(metrics["images"], 30)
        size = codec_bytes(images.squeeze(1).numpy())["PNG, one sheet"]
        self.assertEqual(metrics["codec_bpd"]["PNG, one sheet"], 8 * size / 23520)

    def test_leaves_every_picture_and_prints_the_table(self):
        write_checkpoint(self.checkpoint, z_dim=2)
        self.run_it("--iwae_samples", 2, "--split", "val", "--progress_bar")
        found = {file.stem: imread(file) for file in self.output.glob("*.png")}
        self.assertEqual(set(found), OF_EVERY_MODEL | {"latent_means", "manifold"})
        for name, picture in found.items():
            self.assertGreater(picture[..., :3].std(), 0.01, name)
        for words in ("60 images, MNIST val", "importance-weighted, K = 2", "active units", "PNG"):
            self.assertIn(words, self.said)

    def test_another_models_report_takes_the_place_of_the_one_before(self):
        write_checkpoint(self.checkpoint, z_dim=2)
        self.run_it(*self.few)
        write_checkpoint(self.checkpoint, z_dim=1)
        self.run_it(*self.few)
        self.assertEqual({file.stem for file in self.output.glob("*.png")}, OF_EVERY_MODEL)

    def test_one_image_and_one_latent_dimension_are_enough(self):
        write_checkpoint(self.checkpoint, z_dim=1)
        metrics = self.run_it("--limit", 1, "--iwae_samples", 1)
        self.assertEqual(len(metrics["kl_per_dimension_nats"]), 1)
        self.assertIsNone(metrics["negative_elbo_bpd"]["standard_error"])
        self.assertIsNone(metrics["samples"]["unit_gaussian"]["frechet_distance"])

    def test_samples_are_judged_and_all_numbers_stand_in_the_table(self):
        write_checkpoint(self.checkpoint)
        metrics = self.run_it(*self.few)
        for name in SAMPLES:
            judged = metrics["samples"][name]
            self.assertIn(f"{'-':>16}{judged['sure']:9.3f}", self.said)
            self.assertEqual(judged["right_class"] is None, name in WITHOUT_LABELS, name)
        self.assertIn("Fréchet distance: from 1,000 images on\n", self.said)
        self.assertEqual(metrics["samples"]["of_each_kind"], 12)
        self.assertGreater(metrics["samples"]["training_images"]["right_class"], 0.9)
        self.assertIn(f"T = {VAE().hparams.temperature:g}", self.said)
        distances = metrics["nearest_training_image"]
        for name in ("test_images", "samples", "posterior_samples"):
            mean, error = distances[name].values()
            self.assertIn(f"{mean:.1f} ± {error:.1f}", self.said)
        gain = metrics["negative_elbo_prior_nats"]["mean"] + metrics["prior_gain_nats"]["mean"]
        self.assertAlmostEqual(gain, metrics["negative_elbo_nats"]["mean"], delta=3)
        apart = metrics["log_prior_train_nats"]["mean"] - metrics["log_prior_nats"]["mean"]
        self.assertRegex(self.said, rf"log p\(z\), training - test +{apart:.2f} ±")
        self.assertNotIn("refined", metrics)

    def test_refined_posteriors_are_rows_of_their_own_with_their_price(self):
        write_checkpoint(self.checkpoint)
        plain, refined = self.run_it(*self.few), self.run_it(*self.few, "--refine", 2)
        found = refined.pop("refined")
        self.assertEqual(plain, refined)
        self.assertEqual(found["steps"], 2)
        for name in ("negative_elbo", "negative_elbo_prior"):
            bpd, gain = found[name]["bpd"]["mean"], found[name]["gain_bpd"]["mean"]
            self.assertAlmostEqual(bpd + gain, plain[f"{name}_bpd"]["mean"], delta=1e-6)
            nats = torch.tensor([found[name]["nats"]["mean"]])
            self.assertAlmostEqual(elbo_to_bpd(nats, (1, 1, 28, 28)).item(), bpd, delta=1e-5)
            self.assertGreater(found[name]["seconds"], 0)
            self.assertIn(f"{gain:.4f} ±", self.said)
        self.assertIn("refined by 2 steps", self.said)

    def test_images_that_the_classifier_does_not_know_are_compared_with_the_nearest_only(self):
        self.assertIn(CLASSIFIED_DATASET, fmnist.DATASETS)
        write_checkpoint(self.checkpoint)
        with mock.patch.object(evaluate, "CLASSIFIED_DATASET", "another"):
            metrics = self.run_it(*self.few)
        self.assertNotIn("samples", metrics)
        self.assertNotIn("classifier", self.said)
        self.assertIn("nearest training image", self.said)


class TestPerImage(EvaluateTest):
    def test_the_scores_of_every_image_have_the_means_of_the_report(self):
        write_checkpoint(self.checkpoint)
        scores = self.folder / "scores.csv"
        metrics = self.run_it("--iwae_samples", 2, "--limit", 30, "--per_image", scores)
        with open(scores, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["index"] for row in rows], [str(number) for number in range(30)])
        labels = fmnist.load(train=False).labels[:30].tolist()
        self.assertEqual([row["label"] for row in rows], [str(label) for label in labels])
        for name in ("reconstruction", "kl", *BOUNDS):
            mean = sum(float(row[f"{name}_nats"]) for row in rows) / len(rows)
            self.assertAlmostEqual(mean, metrics[f"{name}_nats"]["mean"], places=3)

    def test_a_file_that_cannot_be_written_is_refused_before_the_work(self):
        write_checkpoint(self.checkpoint)
        for path in (self.checkpoint / "scores.csv", self.folder):
            with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
                evaluate.main(self.command("--per_image", path))
            self.assertEqual((stop.exception.code, len(error.getvalue().splitlines())), (2, 1))
            self.assertIn("--per_image", error.getvalue())


class TestOwnHandwriting(EvaluateTest):
    """The shipped model, and test images as somebody would photograph their own."""

    def setUp(self):
        super().setUp()
        self.checkpoint, self.pictures = PRETRAINED, self.folder / "my digits"
        self.pictures.mkdir()

    def write(self, name: str, image: torch.Tensor, mode: str = "RGB") -> None:
        """A test image as dark ink on light paper, enlarged."""
        picture = Image.fromarray(255 - 17 * image.numpy()).resize((300, 300))
        (self.pictures / name).parent.mkdir(exist_ok=True)
        picture.convert(mode).save(self.pictures / name)

    def test_every_picture_has_its_class_bits_and_nearest_training_image(self):
        data = fmnist.load(train=False).subset(torch.arange(10))
        for number, image in enumerate(data.images):
            mode = ("RGB", "L", "RGBA")[number % 3]
            self.write(f"{number}.png" if number < 9 else "more/9.png", image[0], mode)
        with redirect_stdout(StringIO()) as said:
            evaluate.main(self.command("--images", self.pictures, "--iwae_samples", 1))
        self.assertIn("10 pictures", said.getvalue())
        self.assertEqual({f.name for f in self.output.iterdir()}, {"pictures.csv", "pictures.png"})
        with open(self.output / "pictures.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [*(f"{number}.png" for number in range(9)), "more/9.png"]
        self.assertEqual([row["file"] for row in rows], names)
        found = [int(row["class"]) for row in rows]
        self.assertGreater(sum(a == b for a, b in zip(found, data.labels.tolist(), strict=True)), 8)
        near = [int(row["nearest_class"]) for row in rows]
        self.assertGreater(sum(a == b for a, b in zip(near, data.labels.tolist(), strict=True)), 8)
        for row in rows:
            bits = float(row["negative_elbo_prior_nats"]) / math.log(2)
            self.assertAlmostEqual(float(row["bits"]), bits, places=3)
            self.assertTrue(100 < bits < 1200, bits)
        self.assertGreater(imread(self.output / "pictures.png")[..., :3].std(), 0.1)

    def test_one_picture_is_enough_and_a_second_report_takes_the_place_of_the_first(self):
        self.write("mine.jpg", fmnist.load(train=False).images[0, 0])
        for _ in range(2):
            with redirect_stdout(StringIO()) as said:
                picture = self.pictures / "mine.jpg"
                evaluate.main(self.command("--images", picture, "--iwae_samples", 1))
            self.assertIn("1 picture,", said.getvalue())

    def test_what_is_no_picture_is_refused_by_name_in_one_line(self):
        blank = self.folder / "blank"
        blank.mkdir()
        Image.new("L", (50, 50), 255).save(blank / "blank.png")
        (self.folder / "note.txt").write_text("no picture")
        for path, said in (
            (self.pictures, "has no pictures"),
            (self.folder / "nowhere", "does not exist"),
            (self.folder / "note.txt", "note.txt is no picture"),
            (blank, "blank.png is no picture"),
            ((blank, "--refine", 2), "--refine: it is not for --images"),
        ):
            words = path if isinstance(path, tuple) else (path,)
            with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
                evaluate.main(self.command("--images", *words))
            line = error.getvalue()
            self.assertEqual((stop.exception.code, len(line.splitlines())), (2, 1), line)
            self.assertIn(said, line)
            self.assertFalse(self.output.exists())


class TestDataSet(EvaluateTest):
    def test_a_run_is_judged_on_the_images_of_its_training(self):
        # MNIST's own files under the name, as the others are not in the repository.
        (self.folder / "data" / "FashionMNIST").mkdir(parents=True)
        raw = Path("FashionMNIST", "raw")
        (self.folder / "data" / raw).symlink_to(fmnist.DATA_DIR / "MNIST" / "raw")
        data = ("--data_dir", self.folder / "data")
        few = ("--num_filters", 2, "--epochs", 1, "--accelerator", "cpu", "--log_dir", self.folder)
        training = [str(word) for word in (*data, *few, "--dataset", "FashionMNIST")]
        with mock.patch.object(fmnist, "prepare") as prepare:
            with tiny_data(), redirect_stdout(StringIO()):
                train_pl.main(training)
            prepare.reset_mock()
            self.checkpoint = self.folder / "version_0"
            metrics = self.run_it(*self.few, *data)
        self.assertEqual(prepare.call_args.args[1], "FashionMNIST")
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("FashionMNIST",) * 2)
        self.assertIn("12 images, FashionMNIST test", self.said)
        self.assertNotIn("trained on", self.said)

    def test_other_images_than_those_of_the_training_are_told(self):
        write_checkpoint(self.checkpoint)
        self.rewrite(datamodule_hyper_parameters={"dataset": "FashionMNIST"})
        metrics = self.run_it(*self.few, "--dataset", "MNIST")
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("MNIST", "FashionMNIST"))
        self.assertIn("trained on other images, those of FashionMNIST\n", self.said)
        self.rewrite(datamodule_hyper_parameters={"dataset": "MNIST"})
        self.run_it(*self.few, "--dataset", "MNIST")
        self.assertNotIn("trained on", self.said)

    def test_a_checkpoint_that_does_not_say_its_data_set_is_judged_on_mnist_and_that_is_told(self):
        write_checkpoint(self.checkpoint)
        metrics = self.run_it(*self.few)
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("MNIST", None))
        self.assertIn("does not say what it was trained on\n", self.said)


class TestOutput(EvaluateTest):
    def test_an_output_of_ascii_only_shows_the_numbers(self):
        write_checkpoint(self.checkpoint)
        output = TextIOWrapper(BytesIO(), encoding="ascii")
        with tiny_data(), redirect_stdout(output):
            evaluate.main(self.command(*self.few))
        nats = json.loads((self.output / "metrics.json").read_text())["negative_elbo_nats"]
        said = f"{nats['mean']:.2f} ? {nats['standard_error']:.2f}"
        self.assertIn(said, output.buffer.getvalue().decode("ascii"))

    def test_an_output_that_takes_nothing_costs_a_line_and_not_the_report(self):
        write_checkpoint(self.checkpoint)
        reading, writing = os.pipe()
        os.close(reading)
        for said, where in (("No space left", "/dev/full"), ("nobody", writing)):
            with (
                tiny_data(),
                open(where, "w") as output,
                redirect_stdout(output),
                redirect_stderr(StringIO()) as error,
                self.assertRaises(SystemExit) as stop,
            ):
                evaluate.main(self.command(*self.few))
            self.assertEqual((stop.exception.code, len(error.getvalue().splitlines())), (1, 1))
            self.assertIn(said, error.getvalue())
            self.assertEqual(json.loads((self.output / "metrics.json").read_text())["images"], 12)
            (self.output / "metrics.json").rename(self.folder / "before")
            self.output = self.folder / "second report"


class TestShippedModel(unittest.TestCase):
    def test_reproduces_the_metrics_beside_it(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        images, model = fmnist.load(train=False).images, load_model(PRETRAINED)
        torch.manual_seed(0)
        with torch.no_grad():
            terms = [model.elbo_terms(imgs.long()) for imgs in images.split(500)]
        L_rec, L_reg, _, mean, _ = (torch.cat(parts) for parts in zip(*terms, strict=True))
        bpd = elbo_to_bpd(L_rec + L_reg, images.shape).mean().item()
        self.assertEqual(metrics["images"], len(images))
        self.assertAlmostEqual(bpd, metrics["negative_elbo_bpd"]["mean"], delta=1e-3)
        self.assertAlmostEqual(L_reg.mean().item(), metrics["kl_nats"]["mean"], delta=0.1)
        self.assertEqual(active_units(mean), metrics["active_units"])
        bounds = metrics["importance_weighted_bpd"]["mean"], metrics["negative_elbo_bpd"]["mean"]
        self.assertLess(*bounds)

    def test_holds_weights_and_hyperparameters_only(self):
        content = torch.load(PRETRAINED, weights_only=True)
        self.assertEqual(set(content["state_dict"]), set(VAE().state_dict()))
        self.assertFalse({"optimizer_states", "callbacks", "run"} & set(content))
        self.assertLess(PRETRAINED.stat().st_size, 6e6)


class TestBadInput(EvaluateTest):
    def refusal(self, *arguments: object) -> str:
        """The one line that a command without any output ends with."""
        with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
            evaluate.main(self.command(*arguments))
        self.assertEqual(stop.exception.code, 2)
        self.assertEqual(len(error.getvalue().splitlines()), 1, error.getvalue())
        self.assertFalse(self.output.exists())
        return error.getvalue()

    def test_checkpoints_that_are_none_or_of_another_model_are_refused_by_name(self):
        model = write_checkpoint(self.checkpoint)
        content, weights = self.checkpoint.read_bytes(), dict(model.state_dict())
        whole = torch.load(self.checkpoint, weights_only=True)
        nan = {name: torch.full_like(value, math.nan) for name, value in weights.items()}
        bad = {
            "missing": None,
            "empty": b"",
            "truncated": content[:-1000],
            "list": [1, 2],
            "no-weights": {"hyper_parameters": dict(model.hparams)},
            "another-class": {"hyper_parameters": {"hidden_size": 3}, "state_dict": {}},
            "another-shape": {"decoder.net.0.bias": torch.zeros(3)},
            "another-prior": {"prior.first.weight": torch.zeros(512, 4)},
            "too-many": {"more": torch.ones(1)},
            "not-finite": nan,
        }
        for name, content in bad.items():
            path = self.checkpoint = self.folder / f"{name}.ckpt"
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                of_weights = isinstance(content, dict) and "hyper_parameters" not in content
                torch.save(
                    {**whole, "state_dict": {**weights, **content}} if of_weights else content, path
                )
            with self.subTest(name):
                self.assertIn(str(path), self.refusal())

    def test_a_directory_that_is_no_run_is_refused(self):
        self.checkpoint = self.folder
        self.assertIn("log directory", self.refusal())

    def test_values_that_make_no_sense_are_refused_by_name(self):
        write_checkpoint(self.checkpoint)
        file = self.folder / "file"
        file.touch()
        for name, value in [
            ("--iwae_samples", 0),
            ("--limit", -1),
            ("--refine", -1),
            ("--batch_size", 0),
            ("--split", "all"),
            ("--seed", -1),
            ("--dataset", "another"),
            ("--accelerator", "abacus"),
            ("--accelerator", ""),
            ("--accelerator", "cuda" if not torch.cuda.is_available() else "mps"),
            ("--output", file / "report"),
            ("--data_dir", self.folder / "nowhere"),
        ]:
            with self.subTest(name), mock.patch.dict(os.environ, https_proxy="127.0.0.1:9"):
                said = self.refusal(name, value)
                self.assertIn(name, said)
                self.assertIn(str(value), said)

    def test_a_folder_with_other_files_than_a_reports_keeps_them(self):
        run = self.folder / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        write_checkpoint(run / "checkpoints" / "best_val_bpd_0.5000.ckpt")
        (run / "latent_means.png").write_text("the run's own")
        self.checkpoint = run
        self.assertIn("version_0 has other files", self.refusal("--output", run))
        self.assertEqual((run / "latent_means.png").read_text(), "the run's own")
        self.assertEqual(len([*run.iterdir()]), 2)

    def test_a_machine_without_the_accelerator_says_what_to_choose(self):
        with self.assertRaisesRegex(InputError, "--accelerator: 'abacus'.*choose cpu or auto"):
            evaluate.find_device("abacus")
        self.assertEqual(evaluate.find_device("cpu"), torch.device("cpu"))


if __name__ == "__main__":
    unittest.main()
