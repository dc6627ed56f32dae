"""sample.py: pictures and arrays of new digits."""

import os
from contextlib import chdir
from unittest import mock

import numpy as np
from matplotlib.image import imread
from photos import photo
from PIL import Image
from tiny import InFolder, run_command, save_model

import sample
from cnn_encoder_decoder import CNNDecoder
from train_pl import PRETRAINED, VAE


class TestSample(InFolder):
    def array(self, *arguments: object) -> np.ndarray:
        path = self.folder / "digits.npy"
        code, _, complaints = run_command(sample.main, "--output", path, "--num", 10, *arguments)
        self.assertEqual((code, complaints), (0, ""))
        return np.load(path)

    def test_the_shipped_model_leaves_a_picture_and_says_where(self):
        with chdir(self.folder):
            ending = run_command(sample.main)
        said = "samples.png: 64 images, drawn from the learned prior\n"
        self.assertEqual(ending, (0, said, ""))
        picture, side = imread(self.folder / "samples.png"), 3 * (8 * 30 + 2)
        self.assertEqual(picture.shape[:2], (side + 80, 2 * side + 36))  # drawn, expected
        self.assertEqual(os.listdir(self.folder), ["samples.png"])

    def test_arrays_are_grey_levels_of_the_seed_and_the_class(self):
        drawn = self.array()
        self.assertEqual((drawn.shape, drawn.dtype), ((10, 28, 28), np.uint8))
        self.assertTrue(drawn.max() <= 15 and drawn.max() > 10)
        self.assertTrue(np.array_equal(self.array(), drawn))
        self.assertFalse(np.array_equal(self.array("--seed", 1), drawn))
        self.assertFalse(np.array_equal(self.array("--label", 3), drawn))
        mean = self.array("--mean")
        self.assertEqual(mean.dtype, np.float32)
        self.assertTrue(mean.min() >= 0 and mean.max() < 15.01)
        self.assertFalse(np.array_equal(mean, mean.round()))

    def test_between_two_pictures_of_ones_own_ten_images_are_decoded(self):
        for name, number in (("9.png", 12), ("7.png", 17)):
            Image.fromarray(photo(number, "plain")).save(self.folder / name)
        ends = ("--from", self.folder / "9.png", "--to", self.folder / "7.png")
        way = self.array(*ends)
        self.assertEqual(way.shape, (12, 28, 28))
        for near, far in ((0, 11), (11, 0)):
            own = way[10 if near else 1]  # decoded from the picture's own latents
            self.assertLess(np.abs(own - way[near]).mean(), np.abs(own - way[far]).mean() / 2)
        code, _, _ = run_command(sample.main, *ends, "--output", self.folder / "way.png")
        self.assertEqual(code, 0)
        for line, more in (
            ("--label: it is not for --from", ("--label", 3)),
            ("--from: left out: 1 (none.png (No such file", ("--from", self.folder / "none.png")),
        ):
            ending = run_command(sample.main, *ends, *more, "--output", self.folder / "b.png")
            self.assert_ends(ending[::2], 2, line)

    def test_many_digits_are_decoded_in_parts(self):
        sizes, decode = [], CNNDecoder.forward

        def forward(decoder, z):
            sizes.append(len(z))
            return decode(decoder, z)

        path = save_model(VAE(num_filters=2, z_dim=2), self.folder / "small.ckpt")
        with (
            mock.patch.object(CNNDecoder, "forward", forward),
            mock.patch("pictures.of_model.BATCH", 5),
        ):
            for how in ((), ("--mean",)):
                self.assertEqual(len(self.array(path, *how)), 10)
        self.assertEqual(sizes, [5, 5] * 2)

    def test_bad_input_ends_with_one_line(self):
        damaged = self.folder / "damaged.ckpt"
        damaged.write_bytes(PRETRAINED.read_bytes()[:1000])
        for arguments, said in (
            (("--label", 10), "--label"),
            (("--label", -1), "--label"),
            (("--num", 0), "--num"),
            (("--num", 10**9), "--num"),
            (("--output", "digits.gif"), "digits.gif"),
            (("--output", ""), "--output"),
            (("--output", self.folder / "damaged.ckpt" / "a.png"), "damaged.ckpt"),
            ((damaged,), "damaged.ckpt"),
            ((self.folder / "none.ckpt",), "none.ckpt"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_refused(sample.main, arguments, said)
