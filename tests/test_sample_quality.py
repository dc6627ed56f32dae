"""Samples are judged by exact distances, refined posteriors by the bounds that they had before."""

import unittest
from unittest import mock

import torch
from test_evaluation import EvaluationTest, ToyDecoder, write_checkpoint
from tiny import InFolder, save_model

import evaluate
import fmnist
from boundary.command_line import InputError
from judging import refinement
from judging.bounds import judge
from judging.refinement import LOG_STD_RATE, MEAN_RATE, refine, refined_elbo
from judging.samples import (
    CLASSIFIER,
    KNOWN,
    classify,
    draw_samples,
    frechet_distance,
    judge_samples,
    load_classifier,
    nearest,
    posterior_latents,
)
from train_pl import PRETRAINED, VAE, load_model
from utils import elbo_to_bpd, unit_gaussian_log_prob


def small_model(learned: bool) -> VAE:
    """Random weights; those of the prior too where it is to count as learned."""
    torch.manual_seed(0)
    model = VAE(num_filters=2, z_dim=3)
    if learned:
        torch.nn.init.normal_(model.prior.middle.weight, std=0.05)
    return model.eval()


def few_images(num: int) -> fmnist.DiscreteImages:
    return fmnist.load(train=False).subset(torch.arange(num))


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

    def test_a_shift_counts_as_its_square_and_the_same_images_as_nothing(self):
        features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        self.assertAlmostEqual(frechet_distance(features, features), 0, delta=1e-5)
        shift = torch.tensor([3.0, 0.0, 4.0])
        self.assertAlmostEqual(frechet_distance(features + shift, features), 25, delta=1e-4)

    def test_fewer_images_than_features_have_one_and_a_single_image_has_none(self):
        features = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
        self.assertGreater(frechet_distance(features, features + 1), 1)
        self.assertIsNone(frechet_distance(features[:1], features))
        self.assertIsNone(frechet_distance(features, features[:1]))

    def test_it_draws_nothing_from_the_global_random_stream(self):
        features, before = torch.ones(4, 3), torch.get_rng_state()
        frechet_distance(features, features)
        self.assertTrue(torch.equal(before, torch.get_rng_state()))


class TestClassifier(InFolder):
    def test_the_shipped_one_knows_the_digits_and_is_small(self):
        data = few_images(1500)
        _, logits = classify(load_classifier(), data.images)
        self.assertGreater((logits.argmax(1) == data.labels).double().mean().item(), 0.985)
        self.assertLess(CLASSIFIER.stat().st_size, 1e6)

    def test_digits_are_sure_and_noise_is_far_from_them(self):
        data = few_images(400)
        images, reference = data.images.split(200)
        noise = torch.randint(0, 16, images.shape, dtype=torch.uint8)
        kinds = {"training_images": images, "unit_gaussian": noise}
        judged = judge_samples(load_classifier(), kinds, data.labels[:200], reference)
        digits, clouds = judged["training_images"], judged["unit_gaussian"]
        self.assertGreater(min(digits["sure"], digits["right_class"]), 0.95)
        self.assertGreater(clouds["frechet_distance"], 5 * digits["frechet_distance"])
        self.assertIsNone(clouds["right_class"])
        other = (data.labels[:200] + 1) % 10
        judged = judge_samples(load_classifier(), kinds, other, reference)
        self.assertLess(judged["training_images"]["right_class"], 0.05)

    def test_another_file_in_its_place_is_refused_by_name(self):
        path = self.folder / "classifier.pt"
        for content in (None, b"", CLASSIFIER.read_bytes()[:-100], PRETRAINED.read_bytes()):
            if content is not None:
                path.write_bytes(content)
            with self.assertRaisesRegex(InputError, "classifier.pt cannot be used.*repository"):
                load_classifier(path)


class TestDrawnSamples(unittest.TestCase):
    def test_every_kind_is_of_grey_levels_and_of_the_seed(self):
        images, labels = few_images(70).images, torch.arange(70) % 10
        for learned in (False, True):
            model = small_model(learned)
            first, again, other = (
                draw_samples(model, posterior_latents(model, images, seed), labels, seed)
                for seed in (1, 1, 2)
            )
            expected = {"posterior_samples", "unit_gaussian"}
            by_prior = {"learned_prior", "learned_prior_by_class"} if learned else set()
            self.assertEqual(set(first), expected | by_prior)
            for name, drawn in first.items():
                self.assertEqual((drawn.shape, drawn.dtype), ((70, 1, 28, 28), torch.uint8))
                self.assertLessEqual(drawn.max().item(), 15)
                self.assertTrue(torch.equal(drawn, again[name]), name)
                self.assertFalse(torch.equal(drawn, other[name]), name)

    def test_those_by_class_are_asked_for_by_their_labels(self):
        model, labels = small_model(learned=True), torch.arange(120) % 10
        model.sample = mock.Mock(wraps=model.sample)
        draw_samples(model, torch.zeros(120, 3), labels, 0)
        asked = [call.args[1] for call in model.sample.call_args_list if len(call.args) > 1]
        self.assertTrue(torch.equal(torch.cat(asked), labels))
        self.assertEqual(sum(call.args[0] for call in model.sample.call_args_list), 240)


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

    def test_a_copy_lies_at_zero_and_bright_images_lose_no_digit(self):
        among = torch.full((3, 1, 28, 28), 15, dtype=torch.uint8)
        among[1, 0, 0, 0] = 14
        distances, positions = nearest(among[1:2], among, 2)
        self.assertEqual(distances.tolist(), [[0.0, 1.0]])
        self.assertEqual(positions[0, 0].item(), 1)


class TestRefinement(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.imgs = torch.randint(0, 16, (5, 1, 2, 2))

    def test_steps_are_those_of_the_natural_gradient(self):
        """A decoder that ignores z leaves the KL, whose gradients are known."""
        decoder, mean, log_std = ToyDecoder(3, slope=0.0), torch.randn(5, 3), torch.randn(5, 3)
        found = refine(
            decoder, self.imgs, mean, log_std, unit_gaussian_log_prob, torch.randn(1, 5, 3)
        )
        variance = (2 * log_std).exp()
        expected = mean - MEAN_RATE * variance * mean, log_std - LOG_STD_RATE / 2 * (variance - 1)
        torch.testing.assert_close(found, expected)

    def test_a_posterior_that_is_the_best_stays(self):
        zeros = torch.zeros(5, 3)
        how = (unit_gaussian_log_prob, torch.randn(4, 5, 3))
        mean, log_std = refine(ToyDecoder(3, slope=0.0), self.imgs, zeros, zeros, *how)
        torch.testing.assert_close((mean, log_std), (zeros, zeros))
        self.assertFalse(mean.requires_grad or log_std.requires_grad)

    def test_without_steps_of_any_length_the_bounds_are_those_of_the_encoder(self):
        model, images = small_model(learned=True), few_images(30).images
        judged = judge(model, images, num_samples=1, seed=3)
        with mock.patch.multiple(refinement, MEAN_RATE=0.0, LOG_STD_RATE=0.0):
            for name, learned in (("elbo", False), ("prior_elbo", True)):
                found = refined_elbo(model, images, 2, learned, batch_size=30, seed=3)
                torch.testing.assert_close(found, judged[name])

    def test_it_depends_neither_on_the_batch_size_nor_on_the_model_being_left_as_it_was(self):
        model, images = small_model(learned=True), few_images(12).images
        before = {name: weights.clone() for name, weights in model.state_dict().items()}
        whole, parts, other = (
            refined_elbo(model, images, 2, True, batch_size=size, seed=seed)
            for size, seed in ((12, 1), (5, 1), (5, 2))
        )
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-3)
        self.assertFalse(torch.allclose(whole, other, rtol=1e-4, atol=1e-3))
        for name, weights in model.state_dict().items():
            self.assertTrue(torch.equal(weights, before[name]), name)
        self.assertTrue(all(p.grad is None for p in model.parameters()))

    def test_the_shipped_model_gains_by_it_and_more_by_more_steps(self):
        model, images = load_model(PRETRAINED), few_images(40).images
        judged = judge(model, images, num_samples=1)
        for name, learned in (("elbo", False), ("prior_elbo", True)):
            one, three = (refined_elbo(model, images, n, learned, 40, 42).mean() for n in (1, 3))
            self.assertLess(one.item(), judged[name].mean().item())
            self.assertLess(three.item(), one.item())


class TestReport(EvaluationTest):
    few = ("--iwae_samples", 1, "--limit", 12)

    def write_learned(self) -> None:
        model = write_checkpoint(self.checkpoint)
        torch.nn.init.normal_(model.prior.middle.weight, std=0.05)
        save_model(model, self.checkpoint)

    def test_samples_are_judged_and_all_numbers_stand_in_the_table(self):
        self.write_learned()
        metrics = self.run_it(*self.few)
        kinds = ("training_images", "posterior_samples", "unit_gaussian", "learned_prior")
        for name in (*kinds, "learned_prior_by_class"):
            judged = metrics["samples"][name]
            self.assertIn(f"{judged['frechet_distance']:16.3f}{judged['sure']:9.3f}", self.said)
            free = name in ("unit_gaussian", "learned_prior")
            self.assertEqual(judged["right_class"] is None, free, name)
        self.assertEqual(metrics["samples"]["of_each_kind"], 12)
        self.assertGreater(metrics["samples"]["training_images"]["right_class"], 0.9)
        self.assertIn(f"T = {VAE().hparams.temperature:g}", self.said)
        for name, distance in metrics["nearest_training_image"].items():
            if name != "of_each_kind":
                self.assertIn(
                    f"{distance['mean']:.1f} ± {distance['standard_error']:.1f}", self.said
                )
        gain = metrics["prior_elbo_nats"]["mean"] + metrics["prior_gain_nats"]["mean"]
        self.assertAlmostEqual(gain, metrics["elbo_nats"]["mean"], delta=3)
        apart = metrics["log_prior_train_nats"]["mean"] - metrics["log_prior_nats"]["mean"]
        self.assertRegex(self.said, rf"log p\(z\), training - test +{apart:.2f} ±")
        self.assertNotIn("refined", metrics)

    def test_refined_posteriors_are_rows_of_their_own_with_their_price(self):
        self.write_learned()
        plain, refined = self.run_it(*self.few), self.run_it(*self.few, "--refine", 2)
        found = refined.pop("refined")
        self.assertEqual(plain, refined)
        self.assertEqual(found["steps"], 2)
        for name in ("elbo", "prior_elbo"):
            bpd, gain = found[name]["bpd"]["mean"], found[name]["gain_bpd"]["mean"]
            self.assertAlmostEqual(bpd + gain, plain[f"{name}_bpd"]["mean"], delta=1e-6)
            nats = torch.tensor([found[name]["nats"]["mean"]])
            self.assertAlmostEqual(elbo_to_bpd(nats, (1, 1, 28, 28)).item(), bpd, delta=1e-5)
            self.assertGreater(found[name]["seconds"], 0)
            self.assertIn(f"{gain:.4f} ±", self.said)
        self.assertIn("refined by 2 steps", self.said)

    def test_images_that_the_classifier_does_not_know_are_compared_with_the_nearest_only(self):
        write_checkpoint(self.checkpoint)
        with mock.patch.object(evaluate, "KNOWN", "another"):
            metrics = self.run_it(*self.few)
        self.assertNotIn("samples", metrics)
        self.assertNotIn("classifier", self.said)
        self.assertIn("nearest training image", self.said)
        self.assertIn(KNOWN, fmnist.DATASETS)


if __name__ == "__main__":
    unittest.main()
