"""--bits 1: two levels, drawn anew in every epoch, and what later commands make of them."""

import argparse
import json
import math
import tempfile
import unittest
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import NUM_TRAIN, InFolder, run_command, tiny_data, undrawn, without_pictures
from torch.utils.data import DataLoader

import compare
import evaluate
import explore
import sample
import train_pl
from fmnist import DiscreteImages, ImagesDataModule, MNISTDataModule, binarize, mnist
from reading.own import read_own


@cache
def tiny_binary(seed: int = 0) -> MNISTDataModule:
    with tiny_data():
        data = MNISTDataModule(batch_size=20, seed=seed, bits=1)
        data.setup("fit")
    return data


def batches(loader: DataLoader, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    loader.sampler.set_epoch(epoch)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


class TestDraws(unittest.TestCase):
    def test_a_pixel_is_one_with_the_probability_of_its_grey_value(self):
        grey = torch.arange(256, dtype=torch.uint8).repeat(20_000, 1)
        share = binarize(grey, torch.Generator().manual_seed(0)).double().mean(dim=0)
        expected = torch.arange(256) / 255
        self.assertEqual(share[[0, 255]].tolist(), [0, 1])
        error = (expected * (1 - expected) / len(grey)).sqrt()[1:-1]
        self.assertLess(((share - expected)[1:-1].abs() / error).max().item(), 5)

    def test_images_of_ones_own_in_256_levels_are_shown_as_they_are(self):
        images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, 1, 28, 28)
        part = DiscreteImages(images, torch.zeros(256).long(), num_levels=256)
        data = ImagesDataModule("own", part, part, part)
        data.setup("fit")
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            self.assertEqual(batches(loader)[0].unique().tolist(), [*range(256)])

    def test_training_images_are_drawn_anew_in_every_epoch_from_seed_epoch_and_process(self):
        data, seen = tiny_binary(), set()
        for seed, epoch, rank in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)):
            draws = []
            for _ in range(2):
                loader = data.train_dataloader()
                loader.sampler.seed, loader.sampler.rank = seed, rank
                draws.append(batches(loader, epoch))
            (images, labels), (again, _) = draws
            self.assertTrue(torch.equal(images, again))
            self.assertEqual((images.dtype, images.unique().tolist()), (torch.long, [0, 1]))
            order = torch.tensor([*loader.sampler])[: len(images)]  # a last process has fewer
            self.assertTrue(torch.equal(labels, data.train.labels[order]))
            grey = data.train.grey.images[order]
            self.assertTrue((images[grey == 0] == 0).all() and (images[grey == 255] == 1).all())
            unsure = images.new_zeros(NUM_TRAIN, 1, 28, 28)
            unsure[order] = images
            seen.add(unsure.numpy().tobytes())
        self.assertEqual(len(seen), 4)

    def test_other_images_are_drawn_once_whatever_the_seed_and_the_order_is_that_of_four_bits(self):
        one, other = tiny_binary(), tiny_binary(seed=1)
        for name in ("val", "test"):
            images = getattr(one, name).images
            self.assertTrue(torch.equal(images, getattr(other, name).images))
            self.assertEqual(images.unique().tolist(), [0, 1])
            loader = getattr(one, f"{name}_dataloader")()
            self.assertTrue(torch.equal(torch.cat([imgs for imgs, _ in loader]), images.long()))
        with tiny_data():
            four = MNISTDataModule(batch_size=20, seed=0)
            four.setup("fit")
        labels = [batches(data.train_dataloader(), epoch=2)[1] for data in (one, four)]
        self.assertTrue(torch.equal(*labels))

    def test_plain_loaders_draw_anew_in_every_pass_and_leave_other_streams_alone(self):
        torch.manual_seed(7)
        before, passes = torch.get_rng_state(), []
        for bits in (1, 1, 4):
            with tiny_data():
                train, val, _ = mnist(bits=bits)
            passes.append([[*map(torch.cat, zip(*train, strict=True))] for _ in range(2)])
            self.assertEqual(next(iter(val))[0].max(), 2**bits - 1)
        for (images, labels), (again, _), (_, of_four) in zip(*passes, strict=True):
            self.assertTrue(torch.equal(images, again))
            self.assertTrue(torch.equal(labels, of_four))
        first, second = (images for images, _ in passes[0])
        self.assertNotEqual(first.sum(), second.sum())  # which another order would not change
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_images_of_ones_own_are_drawn_from_their_own_grey_values(self):
        pixels = np.zeros((200, 28, 28), np.uint8)
        pixels[:, :14] = np.arange(28) % 16
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "own.npy")
            np.save(file, pixels)
            own = read_own(file, levels=16, bits=1)
            self.assertNotEqual(own.record["digest"], read_own(file, levels=16).record["digest"])
        self.assertEqual((own.data.num_levels, own.record["bits"]), (2, 1))
        self.assertTrue(torch.equal(own.data.grey.images[:, 0], torch.from_numpy(17 * pixels)))
        self.assertTrue((own.data.images[own.data.grey.images == 0] == 0).all())


class TestRuns(InFolder):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        how = {"num_filters": 2, "z_dim": 3, "epochs": 1, "seed": 3, "batch_size": 20, "bits": 1}
        args = argparse.Namespace(**how, log_dir=temporary.name, accelerator="cpu")
        with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
            train_pl.train_vae(args)
        cls.trained = Path(temporary.name, "version_0")

    def test_evaluate_and_sample_know_the_two_levels(self):
        report, file = self.folder / "report", self.folder / "some.npy"
        limited = ("--limit", 10, "--iwae_samples", 2, "--output", report)
        with tiny_data(), undrawn():
            code, said, error = run_command(evaluate.main, self.trained, *limited)
        self.assertEqual(code, 0, error)
        self.assertIn("10 images, binary MNIST test", said)
        metrics = json.loads((report / "metrics.json").read_text())
        nats, bpd = (metrics[f"negative_elbo_{unit}"]["mean"] for unit in ("nats", "bpd"))
        self.assertAlmostEqual(nats, bpd * 784 * math.log(2), delta=1e-3)
        self.assertLess(bpd, 1)
        self.assertNotIn("samples", metrics)  # the classifier knows 16 levels
        self.assertEqual(run_command(sample.main, self.trained, "--output", file)[0], 0)
        self.assertEqual(np.unique(np.load(file)).tolist(), [0, 1])

    def test_pictures_of_ones_own_are_judged_in_two_levels(self):
        picture = np.zeros((28, 28), np.uint8)
        picture[4:24, 12:16] = 255
        Image.fromarray(picture).save(self.folder / "one.png")
        judged = ("--images", self.folder / "one.png", "--output", self.folder / "report")
        with tiny_data():
            code, _, error = run_command(evaluate.main, self.trained, *judged, "--iwae_samples", 1)
        self.assertEqual(code, 0, error)

    def test_the_page_takes_two_levels_too_but_not_beside_sixteen(self):
        page = self.folder / "a.html"
        with tiny_data():
            self.assertEqual(
                run_command(explore.main, self.trained, "--output", page)[::2], (0, "")
            )
            both = (self.trained, explore.PRETRAINED, "--output", page)
            code, _, error = run_command(explore.main, *both)
        self.assertIn("const LEVELS = 2;", page.read_text())
        self.assert_ends((code, error), 2, "of 2 and of 16 grey levels")

    def test_runs_of_other_bits_are_not_compared(self):
        result = json.loads((self.trained / "result.json").read_text())
        result["trained_on"]["bits"] = result["options"]["bits"] = 4
        (self.folder / "result.json").write_text(json.dumps(result))
        ending = run_command(compare.main, self.trained, self.folder)
        self.assert_ends((ending[0], ending[2]), 2, "different images")
