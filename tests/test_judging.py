"""Judging a model: bounds and distances against exact values, samples, refined posteriors."""

import math
import unittest
from unittest import mock

import torch
from tiny import InFolder, random_model, whole
from torch import nn
from torch.distributions import Categorical, Normal

from benchmarks.refinement import LOG_STD_RATE, MEAN_RATE, refine
from inputs.command_line import InputError
from judging.bounds import BOUNDS, image_bounds
from judging.percentiles import UNUSUAL, hundredths, percentile
from judging.samples import (
    CLASSIFIER,
    draw_samples,
    frechet_distance,
    judge_samples,
    load_classifier,
    nearest,
)
from train_pl import PRETRAINED
from utils import (
    KLD,
    active_units,
    elbo_to_bpd,
    importance_weighted_bpd,
    kl_per_dimension,
    reconstruction_loss,
    unit_gaussian_log_prob,
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

    def log_px(self, z: torch.Tensor, imgs: torch.Tensor) -> torch.Tensor:
        return -reconstruction_loss(self(z), imgs)


class TestImportanceWeightedBound(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.imgs = torch.randint(0, 16, (5, 1, 2, 2))

    def test_is_exact_to_three_decimals_where_the_latent_can_be_integrated_out(self):
        decoder, z = ToyDecoder(z_dim=1, slope=1.0), torch.linspace(-8, 8, 4001).unsqueeze(1)
        L_rec = [reconstruction_loss(decoder(z), img.expand(4001, 1, 2, 2)) for img in self.imgs]
        joint = Normal(0.0, 1.0).log_prob(z).squeeze(1) - torch.stack(L_rec)
        exact = elbo_to_bpd(-joint.logsumexp(dim=1) - math.log(16 / 4000), self.imgs.shape)
        mean = joint.softmax(dim=1) @ z  # near the true posterior, few samples are enough
        log_std = (joint.softmax(dim=1) @ z.square() - mean.square()).log() / 2 + 0.1
        noise = torch.randn(5000, 5, 1).split(1000)
        (bpd,) = importance_weighted_bpd(decoder.log_px, self.imgs, mean, log_std, noise)
        torch.testing.assert_close(bpd, exact, atol=2e-3, rtol=0)
        torch.testing.assert_close(bpd.mean(), exact.mean(), atol=5e-4, rtol=0)

    def test_weights_are_those_of_torch_distributions_whatever_the_size_of_the_parts(self):
        decoder, mean, log_std = ToyDecoder(3, 1.0), torch.randn(5, 3), torch.randn(5, 3)
        posterior, prior, noise = Normal(mean, log_std.exp()), Normal(0, 1), torch.randn(4, 5, 3)
        log_w = []
        for e in noise:
            z = mean + log_std.exp() * e
            pixels = Categorical(logits=decoder(z).permute(0, 2, 3, 1))
            log_px = pixels.log_prob(self.imgs.squeeze(1)).sum(dim=(1, 2))
            log_w.append(log_px + (prior.log_prob(z) - posterior.log_prob(z)).sum(dim=1))
        expected = elbo_to_bpd(-torch.stack(log_w).exp().mean(dim=0).log(), self.imgs.shape)
        of_images = decoder.log_px, self.imgs, mean, log_std
        for size in (1, 3, 4):
            (bpd,) = importance_weighted_bpd(*of_images, noise.split(size))
            torch.testing.assert_close(bpd, expected, rtol=1e-4, atol=1e-4)
        with self.assertRaisesRegex(ValueError, "at least one sample"):
            importance_weighted_bpd(*of_images, [])


class TestBounds(unittest.TestCase):
    def test_they_are_of_the_seed_and_the_index_whatever_the_batch_size(self):
        model, images = random_model(), whole(train=False).first(7).images.clone()
        images[1] = images[0]
        with mock.patch("judging.bounds.DECODER_BATCH", 20):
            first, second, other = (
                image_bounds(model, images, num_samples=11, batch_size=size, seed=seed)
                for size, seed in ((7, 1), (3, 1), (3, 2))
            )
        for name in BOUNDS:
            torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-3)
            self.assertFalse(torch.allclose(first[name], other[name], rtol=1e-5, atol=1e-3))
            self.assertNotEqual(*first[name][:2])  # the same image with noise of its own

    def test_of_one_sample_they_differ_by_what_the_priors_say_of_it(self):
        found = image_bounds(random_model(), whole(train=False).first(5).images, num_samples=1)
        sampled = found["negative_elbo_prior"]
        for name, expected in (
            ("importance_weighted_prior", sampled),
            ("importance_weighted", sampled + found["prior_gain"]),
            ("negative_elbo", found["reconstruction"] + found["kl_per_dimension"].sum(1)),
        ):
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-3, msg=name)


class TestLatents(unittest.TestCase):
    def test_the_kl_of_the_dimensions_adds_up_to_the_kl(self):
        mean, log_std = torch.randn(2, 4, 6)
        torch.testing.assert_close(kl_per_dimension(mean, log_std).sum(1), KLD(mean, log_std))

    def test_units_are_active_if_their_mean_varies_by_more_than_a_hundredth(self):
        torch.manual_seed(0)
        stds = torch.tensor([1.0, 0.11, 0.09, 0.0])
        self.assertEqual(active_units(torch.randn(10_000, 4) * stds + 5), 2)


class TestFrechetDistance(unittest.TestCase):
    def test_it_is_the_distance_of_two_gaussians_by_symmetric_roots(self):
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(7, 7, generator=generator, dtype=torch.double)
        one = torch.randn(500, 7, generator=generator, dtype=torch.double) @ mixing
        other = 2 * torch.randn(300, 7, generator=generator, dtype=torch.double) + 0.3

        def root(matrix: torch.Tensor) -> torch.Tensor:
            values, vectors = torch.linalg.eigh(matrix)
            return vectors * values.clamp(min=0).sqrt() @ vectors.T

        between = root(root(one.T.cov()) @ other.T.cov() @ root(one.T.cov()))
        traces = one.T.cov().trace() + other.T.cov().trace() - 2 * between.trace()
        expected = (one.mean(0) - other.mean(0)).square().sum() + traces
        for precision in (torch.double, torch.float):
            found = frechet_distance(one.to(precision), other.to(precision))
            self.assertAlmostEqual(found, expected.item(), delta=1e-4 * expected.item())
        few = torch.randn(3, 64, generator=generator)  # fewer than features
        self.assertAlmostEqual(frechet_distance(few, few), 0, delta=1e-3)
        self.assertAlmostEqual(frechet_distance(few, few + 1), 64, delta=1e-2)


class TestClassifier(InFolder):
    def test_the_shipped_one_is_small_and_sure_of_digits_and_noise_is_far_from_them(self):
        self.assertLess(CLASSIFIER.stat().st_size, 1e6)
        data = whole(train=False).first(600)
        (images, reference), labels = data.images.split(300), data.labels[:300]
        noise = torch.randint(0, 16, images.shape, dtype=torch.uint8)
        kinds = {"training_images": images, "unit_gaussian": noise}
        with mock.patch("judging.samples.DISTANCE_FROM", 300):
            judged = judge_samples(load_classifier(), kinds, labels, reference)
        digits, clouds = judged["training_images"], judged["unit_gaussian"]
        self.assertGreater(digits["right_class"], 0.985)
        self.assertGreater(digits["sure"], 0.95)
        self.assertGreater(clouds["frechet_distance"], 20 * digits["frechet_distance"])
        self.assertIsNone(clouds["right_class"])
        few = {"training_images": images[:99]}
        judged = judge_samples(load_classifier(), few, (labels[:99] + 1) % 10, reference[:99])
        self.assertLess(judged["training_images"]["right_class"], 0.05)
        self.assertIsNone(judged["training_images"]["frechet_distance"])  # says nothing so far

    def test_another_file_in_its_place_is_refused_by_name(self):
        path = self.folder / "classifier.pt"
        for content in (None, b"", CLASSIFIER.read_bytes()[:-100], PRETRAINED.read_bytes()):
            if content is not None:
                path.write_bytes(content)
            with self.assertRaisesRegex(InputError, "classifier.pt cannot be used.*repository"):
                load_classifier(path)


class TestDrawnSamples(unittest.TestCase):
    def test_every_kind_is_of_grey_levels_of_the_seed_and_by_class_of_the_labels(self):
        train, model = whole(train=False).first(7), random_model()
        model.sample = mock.Mock(wraps=model.sample)
        with mock.patch("judging.samples.BATCH", 5):
            (first, z), (again, _), (other, _) = (draw_samples(model, train, n) for n in (1, 1, 2))
        self.assertEqual(z.shape, (7, 3))
        kinds = ("posterior_samples", "unit_gaussian", "learned_prior", "learned_prior_by_class")
        self.assertEqual(tuple(first), kinds)
        for name, drawn in first.items():
            self.assertEqual((drawn.shape, drawn.dtype), ((7, 1, 28, 28), torch.uint8))
            self.assertLessEqual(drawn.max().item(), 15)
            self.assertTrue(torch.equal(drawn, again[name]), name)
            self.assertFalse(torch.equal(drawn, other[name]), name)
        asked = [call.args[1] for call in model.sample.call_args_list if len(call.args) > 1]
        self.assertTrue(torch.equal(torch.cat(asked), train.labels.repeat(3)))


class TestPercentile(unittest.TestCase):
    def test_it_is_the_share_below_and_hundredths_stand_for_all_values(self):
        among = torch.randperm(1000).float()
        values = torch.tensor([-1.0, 0.5, 250.5, 500.5, 999.5])
        expected = torch.tensor([0, 0.1, 25.1, 50.1, 100])
        torch.testing.assert_close(percentile(values, among), expected)
        few = hundredths(among)
        self.assertEqual(len(few), 100)
        torch.testing.assert_close(percentile(values, few), expected, atol=0.51, rtol=0)
        ends = torch.tensor([UNUSUAL, 100 - UNUSUAL]) / 100
        torch.testing.assert_close(among.quantile(ends), few[[0, -1]])


class TestNearest(unittest.TestCase):
    def test_it_finds_what_all_distances_say(self):
        generator = torch.Generator().manual_seed(0)
        among = torch.randint(0, 16, (12_001, 1, 3, 4), generator=generator, dtype=torch.uint8)
        images = among[[0, 5000, 12_000]].clone()
        images[1, 0, 0, 0] ^= 1
        distances, positions = nearest(images, among, 3)
        every = torch.cdist(images.flatten(1).double(), among.flatten(1).double())
        expected = every.topk(3, largest=False).values
        torch.testing.assert_close(distances.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(every.gather(1, positions), expected)

    def test_bright_images_lose_no_digit(self):
        among = torch.full((3, 1, 28, 28), 15, dtype=torch.uint8)
        among[1, 0, 0, 0] = 14
        self.assertEqual(nearest(among[1:2], among, 2)[0].tolist(), [[0.0, 1.0]])


class TestRefinement(unittest.TestCase):
    def test_steps_are_those_of_the_natural_gradient(self):
        """A decoder that ignores z leaves the KL, whose gradients are known."""
        decoder, mean, log_std = ToyDecoder(3, slope=0.0), torch.randn(5, 3), torch.randn(5, 3)
        imgs, noise = torch.randint(0, 16, (5, 1, 2, 2)), torch.randn(1, 5, 3)
        found = refine(decoder.log_px, imgs, mean, log_std, unit_gaussian_log_prob, noise)
        variance = (2 * log_std).exp()
        expected = mean - MEAN_RATE * variance * mean, log_std - LOG_STD_RATE / 2 * (variance - 1)
        torch.testing.assert_close(found, expected)
        self.assertFalse(any(part.requires_grad for part in found))
