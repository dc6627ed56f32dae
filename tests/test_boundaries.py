"""Public functions say what they expected and what came; a training step does not pay for it."""

import math
import unittest
from unittest import mock

import torch

import utils
from cnn_encoder_decoder import CNNDecoder
from fmnist import DiscreteImages, discretize
from support import muon, pictures
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

    def test_latents_that_are_not_finite_or_of_another_size_are_refused(self):
        decoder = self.model.decoder
        for wrong, *said in (
            (torch.full((2, 3), math.nan), "finite", "NaN"),
            (torch.full((2, 3), math.inf), "finite"),
            (torch.zeros(2, 4), "[B, 3]", "[2, 4]"),
            (torch.zeros(3), "[B, 3]", "[3]"),
            (torch.zeros(2, 3, dtype=torch.long), "float", "int64"),
            (torch.zeros(2, 3, device="meta"), "cpu", "meta"),
        ):
            self.assert_refused(lambda: decoder(wrong), *said)  # noqa: B023

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
            (lambda: utils.reconstruction_loss(logits, images() - 100), "0..15", "-100"),
            (lambda: utils.reconstruction_loss(logits[:, :8], images() + 8), "0..7", "8"),
            (lambda: utils.elbo_to_bpd(long, [2, 1, 28, 28]), "float", "int64"),
            (lambda: utils.elbo_to_bpd(a[:, 0], [2]), "[B, C, H, W]", "[2]"),
            (lambda: utils.mean_image(a), "[B, 16, H, W]", "[2, 3]"),
            (lambda: utils.mean_image(images()), "float", "int64"),
            (lambda: muon.orthogonalize(a), "[N, rows, columns]", "[2, 3]"),
            (lambda: pictures.principal_plane(torch.full((4, 3), math.nan)), "finite", "NaN"),
            (lambda: pictures.principal_plane(a[0]), "[N, D]", "[3]"),
            (lambda: pictures.latent_figure(a, torch.zeros(3)), "labels [N]", "[3]"),
            (lambda: pictures.latent_figure(a * math.nan, torch.zeros(2)), "finite", "NaN"),
            (lambda: utils.visualize_manifold(CNNDecoder(z_dim=2), 1.5), "whole number", "1.5"),
            (lambda: self.model.sample(0), "batch_size", "0"),
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


if __name__ == "__main__":
    unittest.main()
