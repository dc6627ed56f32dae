"""Judging a model: bounds against exact values, the report, files that nobody should trust."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import unittest
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from unittest import mock

import torch
from matplotlib.image import imread
from tiny import InFolder, save_model, tiny_data
from torch import nn
from torch.distributions import Categorical, Normal

import evaluate
import fmnist
import train_pl
from boundary.command_line import InputError
from compression.general_codecs import codec_bytes
from train_pl import PRETRAINED, VAE, load_model
from utils import (
    KLD,
    active_units,
    elbo_to_bpd,
    importance_weighted_bpd,
    interpolate,
    kl_per_dimension,
    reconstruction_loss,
)


class ToyDecoder(nn.Module):
    """Logits of 2x2 images that are linear in z, so that a grid over z gives log p(x)."""

    def __init__(self, z_dim: int, slope: float):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = slope * torch.randn(z_dim, 16 * 4, generator=generator)
        self.bias = torch.randn(16 * 4, generator=generator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z @ self.weight + self.bias).view(-1, 16, 2, 2)


def noise(num_samples: int, *shape: int, part: int = 1000) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return list(torch.randn(num_samples, *shape).split(part))


class TestImportanceWeightedBound(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.imgs = torch.randint(0, 16, (5, 1, 2, 2))
        self.mean, self.log_std = 0.3 * torch.randn(5, 1), 0.1 * torch.randn(5, 1)

    def test_is_exact_to_three_decimals_where_the_latent_can_be_integrated_out(self):
        decoder = ToyDecoder(z_dim=1, slope=1.0)
        z = torch.linspace(-8, 8, 4001).unsqueeze(1)
        exact = torch.stack(
            [
                (
                    Normal(0.0, 1.0).log_prob(z).squeeze(1)
                    - reconstruction_loss(decoder(z), img.expand(len(z), 1, 2, 2))
                ).logsumexp(dim=0)
                + math.log(16 / 4000)
                for img in self.imgs
            ]
        )
        (bpd,) = importance_weighted_bpd(
            decoder, self.imgs, self.mean, self.log_std, noise(200_000, 5, 1, part=20_000)
        )
        torch.testing.assert_close(bpd, elbo_to_bpd(-exact, self.imgs.shape), atol=2e-3, rtol=0)
        self.assertAlmostEqual(
            bpd.mean().item(), elbo_to_bpd(-exact, self.imgs.shape).mean().item(), delta=5e-4
        )

    def test_is_exact_with_any_number_of_samples_where_the_posterior_is_the_prior(self):
        decoder = ToyDecoder(z_dim=1, slope=0.0)  # says nothing about z
        exact = elbo_to_bpd(
            reconstruction_loss(decoder(torch.zeros(5, 1)), self.imgs), (5, 1, 2, 2)
        )
        for K in (1, 7):
            zeros = torch.zeros(5, 1)
            (bpd,) = importance_weighted_bpd(decoder, self.imgs, zeros, zeros, noise(K, 5, 1))
            torch.testing.assert_close(bpd, exact)

    def test_weights_are_those_of_torch_distributions(self):
        decoder, mean, log_std = ToyDecoder(3, 1.0), torch.randn(5, 3), torch.randn(5, 3)
        parts = noise(4, 5, 3, part=3)
        posterior, prior = Normal(mean, log_std.exp()), Normal(0, 1)
        log_w = []
        for e in torch.cat(parts):
            z = mean + log_std.exp() * e
            pixels = Categorical(logits=decoder(z).permute(0, 2, 3, 1))
            log_px = pixels.log_prob(self.imgs.squeeze(1)).sum(dim=(1, 2))
            log_w.append(log_px + (prior.log_prob(z) - posterior.log_prob(z)).sum(dim=1))
        expected = elbo_to_bpd(-torch.stack(log_w).exp().mean(dim=0).log(), self.imgs.shape)
        (bpd,) = importance_weighted_bpd(decoder, self.imgs, mean, log_std, parts)
        torch.testing.assert_close(bpd, expected, rtol=1e-4, atol=1e-4)

    def test_falls_as_the_samples_grow_and_starts_at_the_elbo(self):
        decoder = ToyDecoder(z_dim=1, slope=1.0)
        parts = noise(2000, 5, 1, part=1)
        z = self.mean + self.log_std.exp() * torch.cat(parts)
        L_rec = torch.stack([reconstruction_loss(decoder(one), self.imgs) for one in z])
        elbo = elbo_to_bpd(L_rec.mean(0) + KLD(self.mean, self.log_std), self.imgs.shape)
        bounds = []
        for K in (1, 10, 100):  # the same 2,000 samples, K at a time
            groups = [parts[i : i + K] for i in range(0, len(parts), K)]
            how = (decoder, self.imgs, self.mean, self.log_std)
            bounds.append(torch.cat([importance_weighted_bpd(*how, part) for part in groups]))
        one, ten, hundred = (bound.mean(dim=0) for bound in bounds)
        torch.testing.assert_close(one, elbo, atol=0.02, rtol=0)
        self.assertTrue((ten < one).all() and (hundred < ten).all())

    def test_the_size_of_the_parts_changes_nothing(self):
        how = (ToyDecoder(1, 1.0), self.imgs, self.mean, self.log_std)
        whole, parts = (importance_weighted_bpd(*how, noise(50, 5, 1, part=n)) for n in (50, 7))
        torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6)

    def test_no_samples_at_all_are_refused(self):
        with self.assertRaisesRegex(ValueError, "at least one sample"):
            importance_weighted_bpd(ToyDecoder(1, 1.0), self.imgs, self.mean, self.log_std, [])


class TestLatents(unittest.TestCase):
    def test_the_kl_of_the_dimensions_adds_up_to_the_kl(self):
        mean, log_std = torch.randn(4, 6), torch.randn(4, 6)
        expected = torch.distributions.kl_divergence(Normal(mean, log_std.exp()), Normal(0, 1))
        torch.testing.assert_close(kl_per_dimension(mean, log_std), expected)
        torch.testing.assert_close(kl_per_dimension(mean, log_std).sum(1), KLD(mean, log_std))

    def test_units_are_active_if_their_mean_varies_by_more_than_a_hundredth(self):
        torch.manual_seed(0)
        stds = torch.tensor([1.0, 0.11, 0.09, 0.0])
        self.assertEqual(active_units(torch.randn(10_000, 4) * stds + 5), 2)

    def test_interpolation_goes_in_equal_steps_from_start_to_end(self):
        start, end = torch.randn(2, 3, 4)
        line = interpolate(start, end, num_steps=5)
        self.assertEqual(line.shape, (3, 5, 4))
        torch.testing.assert_close((line[:, 0], line[:, -1]), (start, end))
        steps = line.diff(dim=1)
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=1e-4)


def write_checkpoint(path: Path, **hyper_parameters: float) -> VAE:
    """A checkpoint as train_pl.py leaves it, of an untrained model."""
    torch.manual_seed(0)
    model = VAE(**{"num_filters": 4, "z_dim": 3, "lr": 1e-3, **hyper_parameters})
    save_model(model, path)
    return model


class EvaluationTest(InFolder):
    def setUp(self):
        super().setUp()
        self.checkpoint = self.folder / "model.ckpt"
        self.output = self.folder / "report"

    def run_it(self, *arguments: object) -> dict:
        """Evaluates on the CPU; the metrics that were written."""
        command = [self.checkpoint, "--output", self.output, "--accelerator", "cpu", *arguments]
        with tiny_data(), redirect_stdout(StringIO()) as said:
            evaluate.main([str(word) for word in command])
        self.said = said.getvalue()
        return json.loads((self.output / "metrics.json").read_text())


class TestReport(EvaluationTest):
    def test_a_model_of_zeros_has_four_bpd_by_both_bounds(self):
        model = write_checkpoint(self.checkpoint)
        zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        save_model(model, self.checkpoint, state_dict=zeros)
        metrics = self.run_it("--iwae_samples", 3)
        for name in ("elbo_bpd", "importance_weighted_bpd"):
            self.assertAlmostEqual(metrics[name]["mean"], 4.0, delta=1e-5)
            self.assertAlmostEqual(metrics[name]["standard_error"], 0.0, delta=1e-5)
        self.assertEqual(metrics["active_units"], 0)

    def test_the_same_seed_gives_the_same_numbers_whatever_the_batch_size(self):
        write_checkpoint(self.checkpoint)
        first, second, other = (
            self.run_it("--iwae_samples", 9, "--batch_size", size, "--seed", seed)
            for size, seed in ((40, 1), (7, 1), (7, 2))
        )
        for name in ("elbo_bpd", "importance_weighted_bpd"):
            self.assertAlmostEqual(first[name]["mean"], second[name]["mean"], delta=1e-6)
            self.assertNotAlmostEqual(first[name]["mean"], other[name]["mean"], delta=1e-6)
        self.assertEqual(first["codec_bpd"], second["codec_bpd"])
        self.assertEqual(first["samples"], second["samples"])
        self.assertNotEqual(first["samples"], other["samples"])

    def test_numbers_are_means_over_the_images_with_their_standard_errors(self):
        write_checkpoint(self.checkpoint)
        metrics = self.run_it("--limit", 30, "--iwae_samples", 2)
        with tiny_data():
            images = fmnist.load(fmnist.DATA_DIR, train=False).images[:30]
        judged = evaluate.judge(load_model(self.checkpoint), images, num_samples=2)
        for name, values in (("elbo_nats", "elbo"), ("elbo_bpd", "elbo_bpd"), ("kl_nats", "kl")):
            self.assertAlmostEqual(metrics[name]["mean"], judged[values].mean().item(), places=3)
            error = judged[values].std().item() / math.sqrt(30)
            self.assertAlmostEqual(metrics[name]["standard_error"], error, places=4)
        nats = metrics["importance_weighted_bpd"]["mean"] * 784 * math.log(2)
        self.assertAlmostEqual(metrics["importance_weighted_nats"]["mean"], nats, places=2)
        self.assertAlmostEqual(
            sum(metrics["kl_per_dimension_nats"]), metrics["kl_nats"]["mean"], places=3
        )
        self.assertEqual(metrics["images"], 30)
        sizes = codec_bytes(images.squeeze(1).numpy())
        self.assertEqual(
            metrics["codec_bpd"]["PNG, one sheet"], 8 * sizes["PNG, one sheet"] / 23520
        )

    def test_leaves_every_picture_and_prints_the_table(self):
        write_checkpoint(self.checkpoint, z_dim=2)
        self.run_it("--iwae_samples", 2, "--split", "val", "--progress_bar")
        expected = {"samples", "reconstructions", "interpolations", "traversals", "manifold"}
        expected |= {"kl_per_dimension", "latent_means", "nearest_training_images"}
        found = {file.stem: imread(file) for file in self.output.glob("*.png")}
        self.assertEqual(set(found), expected)
        for name, picture in found.items():
            self.assertGreater(picture[..., :3].std(), 0.01, name)
        said = self.said
        write_checkpoint(self.checkpoint, z_dim=1)
        self.run_it("--iwae_samples", 1, "--limit", 9)
        left = {file.stem for file in self.output.glob("*.png")}
        self.assertEqual(left, expected - {"manifold", "latent_means"})  # none of another model
        for words in ("60 images, MNIST val", "importance-weighted, K = 2", "active units", "PNG"):
            self.assertIn(words, said)

    def test_one_image_and_one_latent_dimension_are_enough(self):
        write_checkpoint(self.checkpoint, z_dim=1)
        metrics = self.run_it("--limit", 1, "--iwae_samples", 1)
        self.assertEqual(len(metrics["kl_per_dimension_nats"]), 1)
        self.assertIsNone(metrics["elbo_bpd"]["standard_error"])
        self.assertIsNone(metrics["samples"]["unit_gaussian"]["frechet_distance"])

    def test_weights_of_another_precision_are_read_as_float32(self):
        model = write_checkpoint(self.checkpoint)
        content = torch.load(self.checkpoint, weights_only=True)
        for dtype in (torch.float64, torch.bfloat16):
            weights = {name: p.to(dtype) for name, p in model.state_dict().items()}
            torch.save({**content, "state_dict": weights}, self.checkpoint)
            for name, weight in load_model(self.checkpoint).state_dict().items():
                self.assertTrue(torch.equal(weight, weights[name].float()), name)

    def save_as_of(self, dataset: object) -> None:
        write_checkpoint(self.checkpoint)
        content = torch.load(self.checkpoint, weights_only=True)
        hyper_parameters = {"datamodule_hyper_parameters": {"dataset": dataset}}
        torch.save({**content, **hyper_parameters}, self.checkpoint)

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
            metrics = self.run_it("--iwae_samples", 1, "--limit", 3, *data)
        self.assertEqual(prepare.call_args.args[1], "FashionMNIST")
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("FashionMNIST",) * 2)
        self.assertIn("3 images, FashionMNIST test", self.said)
        self.assertNotIn("trained on", self.said)

    def test_other_images_than_those_of_the_training_are_told(self):
        self.save_as_of("FashionMNIST")
        metrics = self.run_it("--iwae_samples", 1, "--limit", 3, "--dataset", "MNIST")
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("MNIST", "FashionMNIST"))
        self.assertIn("trained on other images, those of FashionMNIST\n", self.said)
        self.save_as_of("MNIST")
        self.run_it("--iwae_samples", 1, "--limit", 3, "--dataset", "MNIST")
        self.assertNotIn("trained on", self.said)

    def test_a_checkpoint_that_does_not_say_its_data_set_is_judged_on_mnist_and_that_is_told(self):
        write_checkpoint(self.checkpoint)
        metrics = self.run_it("--iwae_samples", 1, "--limit", 3)
        self.assertEqual((metrics["dataset"], metrics["trained_on"]), ("MNIST", None))
        self.assertIn("does not say what it was trained on\n", self.said)

    def test_an_output_of_ascii_only_shows_the_numbers(self):
        write_checkpoint(self.checkpoint)
        command = [self.checkpoint, "--output", self.output, "--limit", 3, "--iwae_samples", 1]
        output = TextIOWrapper(BytesIO(), encoding="ascii")
        with tiny_data(), redirect_stdout(output):
            evaluate.main([str(word) for word in command])
        nats = json.loads((self.output / "metrics.json").read_text())["elbo_nats"]
        said = f"{nats['mean']:.2f} ? {nats['standard_error']:.2f}"
        self.assertIn(said, output.buffer.getvalue().decode("ascii"))

    def test_an_output_that_takes_nothing_costs_a_line_and_not_the_report(self):
        write_checkpoint(self.checkpoint)
        command = [self.checkpoint, "--output", self.output, "--limit", 3, "--iwae_samples", 1]
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
                evaluate.main([str(word) for word in command])
            self.assertEqual((stop.exception.code, len(error.getvalue().splitlines())), (1, 1))
            self.assertIn(said, error.getvalue())
            self.assertEqual(json.loads((self.output / "metrics.json").read_text())["images"], 3)
            shutil.rmtree(self.output)

    def test_a_runs_directory_stands_for_its_best_checkpoint(self):
        checkpoints = self.folder / "version_0" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for name in ("best_val_bpd_0.6000.ckpt", "best_val_bpd_0.5000.ckpt", "last.ckpt"):
            write_checkpoint(checkpoints / name)
        found = evaluate.find_checkpoint(self.folder / "version_0")
        self.assertEqual(found.name, "best_val_bpd_0.5000.ckpt")


class TestShippedModel(unittest.TestCase):
    def test_reproduces_the_metrics_beside_it(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        images = evaluate.load_split(fmnist.DATA_DIR, "MNIST", "test", None).images
        model = load_model(PRETRAINED)
        judged = evaluate.summary(evaluate.judge(model, images, num_samples=1))
        self.assertEqual(metrics["images"], len(images))
        self.assertAlmostEqual(judged["elbo_bpd"]["mean"], metrics["elbo_bpd"]["mean"], delta=1e-3)
        self.assertAlmostEqual(judged["kl_nats"]["mean"], metrics["kl_nats"]["mean"], delta=0.1)
        self.assertEqual(judged["active_units"], metrics["active_units"])
        bounds = metrics["importance_weighted_bpd"]["mean"], metrics["elbo_bpd"]["mean"]
        self.assertLess(*bounds)

    def test_holds_weights_and_hyperparameters_only(self):
        content = torch.load(PRETRAINED, weights_only=True)
        names, expected = set(content["state_dict"]), set(VAE().state_dict())
        self.assertEqual(names, expected)
        self.assertFalse({"optimizer_states", "callbacks", "run"} & set(content))
        self.assertLess(PRETRAINED.stat().st_size, 6e6)


class Payload:
    """Unpickled without care, it creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestBadInput(EvaluationTest):
    def refusal(self, *arguments: object) -> str:
        command = ["--output", self.output, "--accelerator", "cpu", *arguments]
        with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
            evaluate.main([str(word) for word in command])
        self.assertEqual(stop.exception.code, 2)
        self.assertEqual(len(error.getvalue().splitlines()), 1, error.getvalue())
        self.assertFalse(self.output.exists())
        return error.getvalue()

    def test_checkpoints_that_are_none_are_refused_by_name(self):
        good = self.folder / "good.ckpt"
        model = write_checkpoint(good)
        whole = torch.load(good, weights_only=True)
        wrong_shape = {**whole["state_dict"], "decoder.net.0.bias": torch.zeros(3)}
        wrong_prior = {**whole["state_dict"], "prior.first.weight": torch.zeros(512, 4)}
        not_finite = {
            name: torch.full_like(value, math.nan) for name, value in whole["state_dict"].items()
        }
        bad = {
            "missing": None,
            "empty": b"",
            "truncated": good.read_bytes()[:-1000],
            "foreign": b"PK, but only in the beginning",
            "list": [1, 2],
            "no-weights": {"hyper_parameters": dict(model.hparams)},
            "another-class": {"hyper_parameters": {"hidden_size": 3}, "state_dict": {}},
            "another-shape": {**whole, "state_dict": wrong_shape},
            "another-prior": {**whole, "state_dict": wrong_prior},
            "too-large": {**whole, "hyper_parameters": {"num_filters": 10**6, "z_dim": 10**6}},
            "too-few": {**whole, "state_dict": {}},
            "too-many": {**whole, "state_dict": {**whole["state_dict"], "more": torch.ones(1)}},
            "not-finite": {**whole, "state_dict": not_finite},
            "another-data-set": {**whole, "datamodule_hyper_parameters": {"dataset": "EMNIST"}},
            "odd-data-set": {**whole, "datamodule_hyper_parameters": {"dataset": [torch.ones(2)]}},
            "odd-data": {**whole, "datamodule_hyper_parameters": 7},
        }
        for name, content in bad.items():
            path = self.folder / f"{name}.ckpt"
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                torch.save(content, path)
            with self.subTest(name):
                self.assertIn(str(path), self.refusal(path))

    def test_a_damaged_or_compressed_part_is_noticed(self):
        write_checkpoint(self.checkpoint)
        content = bytearray(self.checkpoint.read_bytes())
        content[len(content) // 2] ^= 1
        self.checkpoint.write_bytes(content)
        self.assertIn("Bad CRC-32", self.refusal(self.checkpoint))
        bomb = self.folder / "bomb.ckpt"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10**6))
        self.assertIn("compressed", self.refusal(bomb))

    def test_code_in_a_checkpoint_is_refused_and_never_run(self):
        trap = self.folder / "trap"
        whole = {"hyper_parameters": {"z_dim": 2}, "state_dict": {"x": Payload(trap)}}
        torch.save(whole, self.checkpoint)
        plain = self.folder / "plain.ckpt"
        plain.write_bytes(pickle.dumps(whole))
        for path in (self.checkpoint, plain):
            self.assertIn(str(path), self.refusal(path))
            self.assertFalse(trap.exists())
        torch.load(self.checkpoint, weights_only=False)
        self.assertTrue(trap.exists(), "the trap works")

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
            ("--dataset", "EMNIST"),
            ("--accelerator", "abacus"),
            ("--accelerator", ""),
            ("--accelerator", "cuda" if not torch.cuda.is_available() else "mps"),
            ("--output", file / "report"),
            ("--data_dir", self.folder / "nowhere"),
        ]:
            with self.subTest(name), mock.patch.dict(os.environ, https_proxy="127.0.0.1:9"):
                said = self.refusal(self.checkpoint, name, value)
                self.assertIn(str(value), said)

    def test_a_report_that_cannot_take_its_place_is_refused_by_name(self):
        write_checkpoint(self.checkpoint)
        (self.output / "samples.png").mkdir(parents=True)
        few = ("--output", self.output, "--iwae_samples", 1, "--limit", 3)
        with tiny_data(), redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit):
            evaluate.main([str(word) for word in (self.checkpoint, *few)])
        self.assertRegex(error.getvalue(), "error: argument --output: .*samples.png cannot.*\n$")
        self.assertEqual([*self.folder.glob("evaluating-*")], [])

    def test_a_directory_that_is_no_run_is_refused(self):
        self.assertIn("log directory", self.refusal(self.folder))


class TestDevices(unittest.TestCase):
    def test_auto_and_gpu_mean_the_accelerator_that_the_machine_has(self):
        for found, meant in ((None, "cpu"), (torch.device("mps"), "mps")):
            with mock.patch.object(torch.accelerator, "current_accelerator", return_value=found):
                self.assertEqual(evaluate.find_device("auto").type, meant)
                self.assertEqual(evaluate.find_device("cpu").type, "cpu")
                for name in ("gpu", "mps"):
                    if found is None:
                        with self.assertRaisesRegex(InputError, f"'{name}'.*has cpu"):
                            evaluate.find_device(name)
                    else:
                        self.assertEqual(evaluate.find_device(name).type, "mps")


class TestImports(unittest.TestCase):
    def test_neither_training_nor_a_report_needs_an_entropy_coder(self):
        script = "import sys, evaluate, train_pl; sys.exit('constriction' in sys.modules)"
        root = Path(evaluate.__file__).parent
        self.assertEqual(subprocess.run([sys.executable, "-c", script], cwd=root).returncode, 0)


class TestMain(unittest.TestCase):
    """`run_main` in a process, as what matters is also what Python does at its end."""

    def ending(self, work: str, closed: bool = False, **how: object) -> tuple[int, str, str]:
        script = (
            "import argparse, sys\n"
            "from boundary.command_line import InputError, OneLineParser, WorkError, run_main\n"
            f"def work():\n    {work}\n"
            "parser = OneLineParser(prog='prog')\nrun_main(parser, work)\n"
        )
        shell = 'exec "$0" "$@"' + (" >&-" if closed else "")
        result = subprocess.run(
            ["sh", "-c", shell, sys.executable, "-c", script],
            cwd=Path(evaluate.__file__).parent,
            stderr=subprocess.PIPE,
            text=True,
            **({"stdout": subprocess.PIPE} | how),
        )
        return result.returncode, result.stdout, result.stderr

    def test_every_end_has_its_exit_code_and_one_line(self):
        cases = (
            ("print(1)", (0, "1\n", "")),
            ("print(1); raise InputError('bad')", (2, "1\n", "prog: error: bad\n")),
            ("raise WorkError('lost')", (1, "", "prog: lost\n")),
            ("raise OSError('no room')", (1, "", "prog: no room\n")),
            ("open('/no/file')", (1, "", "prog: /no/file: No such file or directory\n")),
            ("parser.parse_args(['x'])", (2, "", "prog: error: unrecognized arguments: x\n")),
        )
        mistake = "raise KeyError('a mistake of ours')"
        with ThreadPoolExecutor() as threads:
            *endings, (code, _, error) = threads.map(
                self.ending, [*(work for work, _ in cases), mistake]
            )
        for (work, expected), ending in zip(cases, endings, strict=True):
            with self.subTest(work):
                self.assertEqual(ending, expected)
        self.assertEqual(code, 1)
        self.assertIn("Traceback", error)

    def test_an_output_that_cannot_be_written_is_one_line(self):
        def endings(work: str) -> list[tuple[int, str, str]]:
            with open("/dev/full", "w") as full:
                to_full = self.ending(work, stdout=full)
            reading, writing = os.pipe()
            os.close(reading)
            with open(writing, "w") as unread:
                return [to_full, self.ending(work, stdout=unread)]

        works = ("print(1)", "print(1, flush=True)", "parser.print_help()")
        with ThreadPoolExecutor() as threads:
            found = dict(zip(works, threads.map(endings, works), strict=True))
        for work, ending in found.items():
            with self.subTest(work):
                nobody = (1, None, "prog: nobody reads the output any more\n")
                quiet = (0, None, "")  # argparse itself gives up on the help that nobody reads
                full = (1, None, "prog: output: No space left on device\n")
                self.assertEqual(ending, [full, quiet if "help" in work else nobody])
        self.assertEqual(self.ending("print(1)", closed=True), (0, "", ""))

    def test_signs_that_the_output_does_not_have_become_question_marks(self):
        ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
        self.assertEqual(self.ending("print('1 ± 2')", env=ascii_only), (0, "1 ? 2\n", ""))
