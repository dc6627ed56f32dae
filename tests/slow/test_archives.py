"""What measures archives and trains their model of the low bits: benchmarks/."""

import itertools
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from test_compression import digits, noise, small_model
from tiny import InFolder, run_command, save_model

import fmnist
from benchmarks import archives, low_bits_training
from compression import low_bits
from compression.latents import Stack
from reading.own import read_own


class TestArchives(InFolder):
    def setUp(self):
        super().setUp()
        self.checkpoint = save_model(small_model(width=512), self.folder / "small.ckpt")

    def test_it_takes_the_images_that_the_model_was_trained_on(self):
        own = self.folder / "own.npy"
        np.save(own, digits())
        record = read_own(own).record
        save_model(small_model(width=512), self.checkpoint, datamodule_hyper_parameters=record)
        code, said, _ = run_command(archives.main, self.checkpoint, "--limit", 2)
        self.assertEqual(code, 0)
        self.assertIn("2 test images of own.npy", said)
        self.assertNotIn("256 grey levels", said)

    def test_it_prints_the_tables_the_speeds_and_what_was_left_out(self):
        with mock.patch.object(archives, "EFFORTS", ()):
            code, said, _ = run_command(archives.main, self.checkpoint, "--limit", 3)
        self.assertEqual(code, 0)
        table = [line for line in said.splitlines() if line.startswith("|")]
        self.assertEqual(len(table), 2 * (2 + 5 + 2 + 3))  # two kinds, together and single
        for words in ("3 images of 16 grey", "an archive of one image", "JPEG XL is left out"):
            self.assertIn(words, said)

    def test_noise_costs_every_codec_its_bits(self):
        for levels, single in itertools.product((16, 256), (False, True)):
            images, bits = noise(8, levels), 4 if levels == 16 else 8
            for name, contest in archives.codecs(images, levels, single).items():
                with self.subTest(name, levels=levels), redirect_stderr(StringIO()):
                    files, *_ = archives.measure(name, contest)
                    share = sum(map(len, files)) / (images.size * bits / 8)
                    self.assertTrue(0.99 < share < 1.5, share)


class TestLowBitsTraining(InFolder):
    def test_it_lowers_their_cost_and_stores_a_model_that_says_so(self):
        values, new = digits()[:40], self.folder / "new" / "low_bits.npz"
        whole = torch.arange(40).split([35, 5])
        with (
            mock.patch.object(low_bits_training, "grey_levels", return_value=values),
            mock.patch.object(low_bits_training, "BATCH", 12),
            mock.patch.object(fmnist, "split_positions", return_value=whole),
        ):
            _, said, _ = run_command(low_bits_training.main, "--steps", 6, "--output", new)
        stack, model = Stack(), low_bits.LowBits(iter(low_bits.load(new)))
        model.push(stack, values, lambda parts, desc: parts)
        rate = stack.num_bits() / values.size
        self.assertAlmostEqual(float(said.split("test")[1].split()[0]), rate, delta=0.02 * rate)
        untrained = low_bits_training.bits_per_pixel(low_bits_training.LowBits(), values)
        self.assertLess(rate, 0.9 * untrained)
