"""Public functions say what they expected and what came; a training step does not pay for it."""

import math
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import muon
import utils
from boundary.checks import check_size
from cnn_encoder_decoder import CNNDecoder
from fmnist import DiscreteImages, discretize
from train_pl import VAE


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 16, shape or (2, 1, 28, 28))


class TestBoundaries(unittest.TestCase):
    def setUp(self):
        self.model = VAE(num_filters=2, z_dim=3, lr=1e-3)

    def assert_refused(self, call, *said: str) -> None:
        with self.assertRaises((TypeError, ValueError)) as refused:
            call()
        for words in said:
            self.assertIn(words, str(refused.exception))

    def test_images_of_another_range_type_shape_or_device_are_refused_everywhere(self):
        for call in (self.model, self.model.reconstruct, self.model.encoder):
            for wrong, *said in (
                (images() * 17, "0..15", "255"),
                (images() - 1000, "0..15", "-1000"),
                (images() / 15, "long", "float32"),
                (images().to(torch.uint8), "long", "uint8"),
                (images(2, 28, 28), "[B, 1, 28, 28]", "[2, 28, 28]"),
                (images(2, 3, 28, 28), "[B, 1, 28, 28]", "[2, 3, 28, 28]"),
                (images().to("meta"), "cpu", "meta"),
                ([1, 2], "long", "list"),
            ):
                self.assert_refused(lambda: call(wrong), *said)  # noqa: B023

    def test_latents_of_another_size_type_or_device_are_refused(self):
        decoder = self.model.decoder
        for wrong, *said in (
            (torch.zeros(2, 4), "[B, 3]", "[2, 4]"),
            (torch.zeros(3), "[B, 3]", "[3]"),
            (torch.zeros(2, 3, dtype=torch.long), "float", "int64"),
            (torch.zeros(2, 3, device="meta"), "cpu", "meta"),
        ):
            self.assert_refused(lambda: decoder(wrong), *said)  # noqa: B023

    def test_latents_and_labels_elsewhere_than_the_prior_are_refused(self):
        prior, z = self.model.prior, torch.zeros(2, 3)
        self.assert_refused(lambda: prior.log_prob(z.to("meta")), "cpu", "meta")
        there = torch.zeros(2, dtype=torch.long, device="meta")
        self.assert_refused(lambda: prior.log_prob(z, there), "labels", "cpu", "meta")
        self.assert_refused(lambda: self.model.sample(2, there), "labels", "cpu", "meta")

    def test_latents_that_are_not_finite_give_a_loss_that_is_not_finite(self):
        for value in (math.nan, math.inf):
            logits = self.model.decoder(torch.full((2, 3), value))
            self.assertFalse(utils.reconstruction_loss(logits, images()).isfinite().any())

    def test_a_batch_without_images_has_no_mean_but_empty_parts(self):
        none = images(0, 1, 28, 28)
        self.assert_refused(lambda: self.model(none), "at least one image")
        mean, log_std = self.model.encoder(none)
        logits = self.model.decoder(utils.sample_reparameterize(mean, log_std.exp()))
        noise = [torch.randn(4, 0, 3)]
        for losses in (
            utils.KLD(mean, log_std),
            utils.reconstruction_loss(logits, none),
            utils.elbo_to_bpd(utils.KLD(mean, log_std), none.shape),
            utils.importance_weighted_bpd(self.model.decoder, none, mean, log_std, noise)[0],
        ):
            self.assertEqual(losses.shape, (0,))
        self.assertEqual(self.model.reconstruct(none).shape, (0, 1, 28, 28))

    def test_a_grey_level_without_a_logit_has_no_loss(self):
        logits = torch.zeros(2, 8, 28, 28)
        # -100 is the label that torch's cross_entropy passes over if it is not told otherwise.
        for level in (-100, -1, 8, 15):
            with self.assertRaisesRegex(IndexError, str(level)):
                utils.reconstruction_loss(logits, torch.full((2, 1, 28, 28), level))

    def test_sizes_are_whole_numbers_of_any_kind_but_no_bools(self):
        for value in (3, np.int64(3), np.uint8(3), torch.tensor(3)):
            size = check_size("size", value)
            self.assertEqual((size, type(size)), (3, int))
        for wrong in (True, np.True_, 0, np.int64(-1), 3.0, np.float64(3), "3", None):
            self.assert_refused(lambda: check_size("size", wrong), "size", repr(wrong))  # noqa: B023
        decoder = CNNDecoder(num_filters=np.int64(2), z_dim=np.int32(2))
        self.assertIs(type(decoder.z_dim), int)
        self.assertEqual(utils.visualize_manifold(decoder, np.int64(2)).shape, (3, 56, 56))

    def test_the_maths_refuses_other_types_and_shapes(self):
        a, long = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long)
        logits = torch.zeros(2, 16, 28, 28)
        for call, *said in (
            (lambda: utils.sample_reparameterize(a, torch.zeros(3, 2)), "[2, 3]", "[3, 2]"),
            (lambda: utils.sample_reparameterize(long, a), "float", "int64"),
            (lambda: utils.sample_reparameterize(a, a.to("meta")), "cpu", "meta"),
            (lambda: utils.KLD(a, torch.zeros(2, 4)), "[2, 3]", "[2, 4]"),
            (lambda: utils.KLD(a, long), "float", "int64"),
            (lambda: utils.reconstruction_loss(logits, images(3, 1, 28, 28)), "[3, 1, 28, 28]"),
            (lambda: utils.reconstruction_loss(logits, images() / 1), "long", "float32"),
            (lambda: utils.reconstruction_loss(logits.long(), images()), "float", "int64"),
            (lambda: utils.reconstruction_loss(a, images()), "[B, 16, H, W]", "[2, 3]"),
            (lambda: utils.elbo_to_bpd(long, [2, 1, 28, 28]), "float", "int64"),
            (lambda: utils.elbo_to_bpd(a[:, 0], [2]), "[B, C, H, W]", "[2]"),
            (lambda: utils.mean_image(a), "[B, 16, H, W]", "[2, 3]"),
            (lambda: utils.mean_image(images()), "float", "int64"),
            (lambda: muon.orthogonalize(a), "[N, rows, columns]", "[2, 3]"),
            (lambda: utils.visualize_manifold(CNNDecoder(z_dim=2), 1.5), "whole number", "1.5"),
            (lambda: self.model.sample(0), "at least 1", "0"),
            (lambda: discretize(a, 0), "num_values", "0"),
            (lambda: DiscreteImages(images(), torch.zeros(2).long()), "uint8", "int64"),
            (lambda: DiscreteImages(a.to(torch.uint8), long[:, 0]), "[N, 1, H, W]", "[2, 3]"),
            (lambda: DiscreteImages(images().to(torch.uint8) * 17, long[:, 0]), "0..15"),
        ):
            self.assert_refused(call, *said)

    def test_a_training_step_on_an_accelerator_looks_at_no_value(self):
        # A meta tensor has no values: to look at one is an error.
        model = self.model.to("meta")
        with mock.patch.object(torch.Tensor, "item", side_effect=AssertionError):
            model(images().to("meta"))[2].backward()

    def test_what_has_no_values_is_not_looked_at_without_gradients_either(self):
        # A tensor on the meta device; and in a compiled function a look would split the graph.
        mean, std = torch.zeros(2, 3), torch.ones(2, 3)
        with torch.no_grad():
            self.model.to("meta")(images().to("meta"))
            utils.sample_reparameterize(mean.to("meta"), std.to("meta"))
            compiled = torch.compile(utils.sample_reparameterize, backend="eager", fullgraph=True)
            self.assertEqual(compiled(mean, std).shape, (2, 3))


class TestImports(unittest.TestCase):
    def test_the_maths_loads_neither_matplotlib_nor_lightning(self):
        loaded = "import sys, utils; print({name.split('.')[0] for name in sys.modules})"
        root = Path(utils.__file__).parent
        found = subprocess.run(
            [sys.executable, "-c", loaded], cwd=root, check=True, capture_output=True, text=True
        ).stdout
        self.assertIn("'torch'", found)
        self.assertNotIn("matplotlib", found)
        self.assertNotIn("lightning", found)


if __name__ == "__main__":
    unittest.main()
