"""The learned prior is an exact density that starts as N(0, I) and draws what it says."""

import math
import unittest

import tiny  # noqa: F401  for the path of what is tested
import torch

from prior import LatentPrior

NUM_CLASSES = 10


def random_prior(
    z_dim: int,
    seed: int = 0,
    width: int = 32,
    num_components: int = 3,
    num_classes: int = NUM_CLASSES,
) -> LatentPrior:
    """A prior whose mixtures are all different and lean on all that they may see."""
    torch.manual_seed(seed)
    prior = LatentPrior(z_dim, width, num_components, num_classes)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
        prior.last.bias.view(z_dim, 3, num_components)[:, 2] -= 0.5
        prior.last.weight.mul_(0.25)
    return prior


def log_unit_gaussian(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)


class TestDensity(unittest.TestCase):
    def test_an_untrained_prior_and_one_of_zeros_are_the_unit_gaussian_exactly(self):
        torch.manual_seed(0)
        zeros = LatentPrior(5)
        for parameter in zeros.parameters():
            torch.nn.init.zeros_(parameter)
        z, labels = 2 * torch.randn(50, 5), torch.arange(50) % NUM_CLASSES
        for prior in (LatentPrior(5), zeros):
            log_weights, means, log_stds = prior.conditionals(z, labels)
            self.assertTrue(bool((log_weights == log_weights[0, 0, 0]).all()))
            self.assertTrue(bool((means == 0).all() and (log_stds == 0).all()))
            for log_prob in (prior.log_prob(z), prior.log_prob(z, labels)):
                torch.testing.assert_close(log_prob, log_unit_gaussian(z), atol=1e-5, rtol=1e-6)

    def test_step_by_step_its_mixtures_are_those_of_one_pass_whatever_the_widths(self):
        for z_dim, width in ((5, 32), (7, 3), (1, 1)):
            prior = random_prior(z_dim, width=width)
            z, labels = torch.randn(6, z_dim), torch.arange(6)
            with torch.no_grad():
                whole, steps = prior.conditionals(z, labels), prior.autoregressive_steps(labels)
                for i in range(z_dim):
                    step = steps.send(None if i == 0 else z[:, i - 1])
                    for part, expected in zip(step, whole, strict=True):
                        torch.testing.assert_close(part, expected[:, i], atol=1e-5, rtol=1e-5)

    def test_the_density_without_labels_is_the_mean_over_the_classes(self):
        for num in (3, NUM_CLASSES):
            prior, z = random_prior(z_dim=4, num_classes=num), torch.randn(6, 4)
            each = torch.stack([prior.log_prob(z, torch.full((6,), y)) for y in range(num)])
            mean = each.double().exp().mean(dim=0)
            torch.testing.assert_close(prior.log_prob(z).double().exp(), mean, rtol=1e-4, atol=0)
            self.assertGreater(each.std(dim=0).mean().item(), 0.1)

    def test_the_density_is_the_product_of_the_conditionals(self):
        prior = random_prior(z_dim=3)
        z, labels = torch.randn(8, 3), torch.arange(8)
        log_weights, means, log_stds = prior.conditionals(z, labels)
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=log_weights),
            torch.distributions.Normal(means, log_stds.exp()),
        )
        expected = mixture.log_prob(z).sum(dim=1)
        torch.testing.assert_close(prior.log_prob(z, labels), expected, rtol=1e-4, atol=1e-4)

    def test_a_latent_has_no_influence_on_the_mixtures_up_to_its_own_and_has_on_later_ones(self):
        for z_dim, width in ((6, 32), (32, 512), (9, 4)):
            prior = random_prior(z_dim, width=width)
            z, labels = torch.randn(3, z_dim), torch.tensor([1, 2, 3])
            before = prior.conditionals(z, labels)
            for i in range(z_dim):
                changed = z.clone()
                changed[:, i] = 1e3
                for old, new in zip(before, prior.conditionals(changed, labels), strict=True):
                    self.assertTrue(torch.equal(old[:, : i + 1], new[:, : i + 1]), (z_dim, i))
                if width >= z_dim:
                    moved = (new != old)[:, i + 1 :]  # log_stds; log_weights reach their limits
                    self.assertTrue(bool(moved.any(dim=2).any(dim=0).all()), (z_dim, i))


class TestSamples(unittest.TestCase):
    def test_samples_lie_under_the_density_of_their_class_or_of_all(self):
        """Two-sample test: counts per cell of a grid against the integral of exp(log_prob)."""
        prior = random_prior(z_dim=2, seed=3).double()
        edge, cells, fine = 6.0, 12, 10
        steps = (torch.arange(cells * fine, dtype=torch.double) + 0.5) * 2 * edge / (cells * fine)
        points = torch.cartesian_prod(steps - edge, steps - edge)
        torch.manual_seed(2)
        for of in (None, lambda num: torch.full((num,), 4)):
            density = prior.log_prob(points, of and of(len(points))).exp()
            density = density.view(cells, fine, cells, fine).sum(dim=(1, 3)).flatten()
            expected = 20_000 * density * (2 * edge / (cells * fine)) ** 2
            index = ((prior.sample(20_000, of and of(20_000)) + edge) / (2 * edge) * cells).floor()
            index = index[((index >= 0) & (index < cells)).all(dim=1)].long()
            counts = torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2)
            kept = expected > 20
            degrees = int(kept.sum())
            self.assertGreater(degrees, 30)
            chi_squared = ((counts - expected).square() / expected)[kept].sum().item()
            self.assertLess(chi_squared, degrees + 4 * math.sqrt(2 * degrees))

    def test_a_temperature_sharpens_the_weights_and_narrows_the_gaussians(self):
        prior, labels, T = random_prior(z_dim=1), torch.full((20_000,), 4), 0.6
        log_weights, means, log_stds = (
            part[0, 0] for part in prior.conditionals(torch.zeros(1, 1), labels[:1])
        )
        weights = log_weights.exp() ** (1 / T**2)
        torch.manual_seed(1)
        z = prior.sample(20_000, labels, T).sort(dim=0).values
        cdf = torch.distributions.Normal(means, T * log_stds.exp()).cdf(z) @ weights / weights.sum()
        steps = torch.arange(20_000) / 20_000
        self.assertLess((cdf - steps).abs().max().item(), 0.015)  # Kolmogorov-Smirnov


class TestLearning(unittest.TestCase):
    def test_all_gaussians_of_a_mixture_become_different_and_a_known_density_is_learned(self):
        """Class y: the first latent is bimodal around +-2, the second its square plus y."""
        torch.manual_seed(0)
        prior = LatentPrior(z_dim=2, width=64, num_components=4)
        optimizer = torch.optim.Adam(prior.parameters(), lr=5e-3)

        def draw(num: int) -> tuple[torch.Tensor, torch.Tensor]:
            labels = torch.randint(NUM_CLASSES, (num,))
            first = 2 * torch.randint(0, 2, (num,)).mul(2).sub(1) + 0.3 * torch.randn(num)
            second = 0.5 * first.square() + 0.2 * labels - 3 + 0.3 * torch.randn(num)
            return torch.stack([first, second], dim=1), labels

        for _ in range(300):
            loss = -prior.log_prob(*draw(256)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z, labels = draw(4000)
        entropy = 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.3)) + math.log(2)
        self.assertLess(-prior.log_prob(z, labels).mean().item(), entropy + 0.15)
        _, means, _ = prior.conditionals(z, labels)
        self.assertGreater(means.std(dim=2).mean(dim=0)[0].item(), 0.5)

    def test_under_autocast_it_computes_in_float32(self):
        prior = random_prior(z_dim=4)
        z, labels = torch.randn(5, 4), torch.arange(5)
        expected = prior.log_prob(z, labels)
        with torch.autocast("cpu", torch.bfloat16):
            found = prior.log_prob(z, labels)
        self.assertEqual(found.dtype, torch.float32)
        self.assertTrue(torch.equal(found, expected))


class TestBadInput(unittest.TestCase):
    def test_latents_and_labels_that_do_not_fit_are_refused(self):
        prior = LatentPrior(3, width=8)
        z, labels = torch.zeros(2, 3), torch.tensor([0, 9])
        for call, error, *said in (
            (lambda: prior.log_prob(z, torch.tensor([0, 10])), ValueError, "0..9", "0 to 10"),
            (lambda: prior.log_prob(z, torch.tensor([1])), ValueError, "[2]", "[1]"),
            (lambda: prior.log_prob(z, labels.float()), TypeError, "long", "float32"),
            (lambda: prior.log_prob(torch.zeros(2, 4), labels), ValueError, "[B, 3]", "[2, 4]"),
            (lambda: prior.log_prob(z.long(), labels), TypeError, "float", "int64"),
            (lambda: prior.sample(3, labels), ValueError, "[3]", "[2]"),
            (lambda: prior.sample(0), ValueError, "num", "0"),
            (lambda: LatentPrior(0), ValueError, "z_dim", "0"),
            (lambda: LatentPrior(2, width=0), ValueError, "width", "0"),
            (lambda: LatentPrior(2, num_components=0), ValueError, "num_components", "0"),
        ):
            with self.subTest(said), self.assertRaises(error) as refused:
                call()
            for words in said:
                self.assertIn(words, str(refused.exception))
