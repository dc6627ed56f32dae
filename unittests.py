"""All tests: python -m unittest unittests.py (or python unittests.py).

Here stand the tests of the networks and of utils.py; those of the data, of training and of the
command line are in tests/ and are taken in by `load_tests`.
"""

import itertools
import math
import os
import unittest
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported; as for torch below

import torch
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence

from cnn_encoder_decoder import CNNDecoder, CNNEncoder, Conv1x1, ResidualBlock
from muon import Muon, inverse_root, warmup_and_line
from train_pl import VAE
from utils import (
    KLD,
    elbo_to_bpd,
    mean_image,
    reconstruction_loss,
    sample_reparameterize,
    sampled_negative_elbo,
    unit_gaussian_log_prob,
    visualize_manifold,
)

torch.set_num_threads(1)  # threads that wait for each other take three times as long here
TESTS = Path(__file__).resolve().parent / "tests"
SIZES = [(1, 2), (16, 20), (32, 64)]  # num_filters, z_dim


def setUpModule():
    torch.manual_seed(0)


def images(batch_size: int = 4) -> torch.Tensor:
    return torch.randint(0, 16, (batch_size, 1, 28, 28))


class TestNetworks(unittest.TestCase):
    def test_they_map_images_to_mean_and_log_std_and_latents_to_logits_of_sixteen_levels(self):
        for num_filters, z_dim in SIZES:
            mean, log_std = CNNEncoder(num_filters=num_filters, z_dim=z_dim)(images(3))
            self.assertEqual((mean.shape, log_std.shape), ((3, z_dim), (3, z_dim)))
            logits = CNNDecoder(num_filters=num_filters, z_dim=z_dim)(mean)
            self.assertEqual(logits.shape, (3, 16, 28, 28))
        self.assertEqual(CNNDecoder().z_dim, VAE().prior.z_dim)  # the defaults fit

    def test_encoder_sees_the_grey_levels_from_minus_one_to_one(self):
        encoder, seen = CNNEncoder(num_filters=2, z_dim=2), []
        encoder.net[0].register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 0, 0, 0]))
        mean, _ = encoder(torch.tensor([0, 15]).view(2, 1, 1, 1).expand(2, 1, 28, 28))
        self.assertEqual(seen[0].tolist(), [-1, 1])
        self.assertFalse(torch.allclose(mean[0], mean[1]))

    def test_zero_parameters_are_the_uniform_distribution_at_exactly_four_bpd(self):
        for num_filters, z_dim in SIZES:
            model = VAE(num_filters=num_filters, z_dim=z_dim, lr=1e-3)
            for p in model.parameters():
                nn.init.zeros_(p)
            L_rec, L_reg, bpd = model(images(8))
            self.assertAlmostEqual(L_rec.item(), 784 * math.log(16), delta=1e-3)
            self.assertEqual(L_reg.item(), 0.0)
            self.assertAlmostEqual(bpd.item(), 4.0, delta=1e-5)

    def test_every_parameter_gets_a_gradient(self):
        model = VAE(num_filters=8, z_dim=4, lr=1e-3)
        for p in model.parameters():
            nn.init.normal_(p, std=0.1)
        model(images(8))[2].backward()
        for name, p in model.named_parameters():
            if not name.startswith("prior."):
                self.assertIsNotNone(p.grad, name)
                self.assertGreater(p.grad.abs().sum().item(), 0, name)
        self.assertTrue(all(p.grad is None for p in model.prior.parameters()))

    def test_residual_block_starts_as_the_identity(self):
        x = torch.randn(2, 8, 7, 7)
        torch.testing.assert_close(ResidualBlock(8)(x), x)

    def test_a_1x1_convolution_and_its_gradients_are_torchs_in_either_layout(self):
        for layout in (torch.contiguous_format, torch.channels_last):
            conv = Conv1x1(5, 3, 1).double().to(memory_format=layout)
            x = torch.randn(2, 5, 4, 6, dtype=torch.double).to(memory_format=layout)
            x.requires_grad_()
            found, expected = conv(x), nn.functional.conv2d(x, conv.weight, conv.bias)
            torch.testing.assert_close(found, expected)
            wanted = (x, conv.weight, conv.bias)
            for mine, torchs in zip(
                torch.autograd.grad(found.square().sum(), wanted),
                torch.autograd.grad(expected.square().sum(), wanted),
                strict=True,
            ):
                torch.testing.assert_close(mine, torchs)

    def test_sizes_below_one_are_refused_by_name(self):
        for network in (CNNEncoder, CNNDecoder):
            for name in ("num_input_channels", "num_filters", "z_dim"):
                for value in (0, -1, 1.5):
                    with self.assertRaisesRegex(ValueError, name):
                        network(**{name: value})


class TestModel(unittest.TestCase):
    def test_forward_returns_the_means_of_the_two_losses_and_of_the_bpd(self):
        model, x = VAE(num_filters=8, z_dim=4, lr=1e-3), images(6)
        L_rec, L_reg, bpd = model(x)
        self.assertEqual((L_rec.shape, L_reg.shape, bpd.shape), ((), (), ()))
        self.assertAlmostEqual(
            bpd.item(), (L_rec + L_reg).item() / 784 / math.log(2), delta=1e-4 * bpd.item()
        )
        mean, log_std = model.encoder(x)
        torch.testing.assert_close(L_reg, KLD(mean, log_std).mean())

    def test_samples_are_grey_levels_that_follow_the_decoders_distribution(self):
        model = VAE(num_filters=8, z_dim=4, lr=1e-3)
        for p in model.parameters():
            nn.init.zeros_(p)
        expected = torch.arange(1, 17) / 136
        model.decoder.net[-1].bias.data = expected.log()
        samples = model.sample(64)
        self.assertEqual((samples.shape, samples.dtype), ((64, 1, 28, 28), torch.long))
        counts = samples.flatten().bincount(minlength=16) / (64 * 784)
        torch.testing.assert_close(counts, expected, atol=5e-3, rtol=0)

    def test_samples_reconstructions_and_manifold_run_on_the_models_device_and_dtype(self):
        model = VAE(num_filters=4, z_dim=2, lr=1e-3)
        for other in ("meta", torch.bfloat16, torch.float64):
            model.to(other)
            where = model.decoder.device
            self.assertEqual(model.sample(2).device, where)
            self.assertEqual(model.reconstruct(images(2).to(where)).device, where)
            self.assertEqual(visualize_manifold(model.decoder, grid_size=2).device, where)
            model = VAE(num_filters=4, z_dim=2, lr=1e-3)

    def test_every_public_loss_of_half_tensors_is_float32_and_keeps_its_digits(self):
        x = images(3)
        for dtype in (torch.bfloat16, torch.float16):
            logits = torch.randn(3, 16, 28, 28).mul(30).to(dtype)
            mean, log_std = torch.randn(2, 3, 5000).to(dtype)
            for of, *args in (
                (lambda logits: reconstruction_loss(logits, x), logits),  # ten thousands of nats
                (KLD, mean, log_std),
                (lambda elbo: elbo_to_bpd(elbo, x.shape), mean[:, 0]),
                (mean_image, logits),
            ):
                result = of(*args)
                self.assertEqual(result.dtype, torch.float32)
                expected = of(*[tensor.double() for tensor in args]).float()
                torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)

    def test_the_learning_rate_rises_once_and_falls_to_zero_for_any_number_of_steps(self):
        for total in (1, 2, 19, 20, 21, 1000):
            shares = [warmup_and_line(step, total, 0.05) for step in range(total + 1)]
            self.assertTrue(all(0 <= share <= 1 for share in shares), total)
            self.assertGreater(shares[0], 0)
            top = shares.index(max(shares))
            self.assertEqual(top, max(1, round(0.05 * total)))
            self.assertEqual(shares[top], 1)
            self.assertEqual(shares, sorted(shares[:top]) + sorted(shares[top:], reverse=True))
            if total > 1:
                self.assertAlmostEqual(shares[-1], 0)
        unknown = {warmup_and_line(step, math.inf, 0.05) for step in (0, 1, 10**6)}
        self.assertEqual(unknown, {1.0})

    def test_training_images_move_by_at_most_a_pixel_and_not_at_all_near_the_end(self):
        model = VAE(num_filters=4, z_dim=2, lr=1e-3)
        imgs = torch.zeros(2, 1, 28, 28, dtype=torch.long)
        imgs[:, :, 4:24, 4:24] = torch.randint(1, 16, (2, 1, 20, 20))
        moved = [model.augmented(imgs, progress=0.5) for _ in range(500)]
        places = [tuple((other[0, 0] > 0).nonzero()[0].tolist()) for other in moved]
        self.assertEqual(set(places), {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)})
        for other in moved:
            self.assertEqual(other.sum(), imgs.sum())
        share = 1 - places.count((4, 4)) / len(places)
        self.assertAlmostEqual(share, model.hparams.shift_probability * 8 / 9, delta=0.1)
        self.assertTrue(all(model.augmented(imgs, progress=0.95) is imgs for _ in range(50)))


class TestReparameterization(unittest.TestCase):
    def test_samples_have_the_mean_and_the_std(self):
        torch.manual_seed(0)
        z = sample_reparameterize(torch.full((100_000,), 3.0), torch.full((100_000,), 0.5))
        self.assertAlmostEqual(z.mean().item(), 3.0, delta=0.01)
        self.assertAlmostEqual(z.std().item(), 0.5, delta=0.01)

    def test_gradients_are_one_for_the_mean_and_the_noise_for_the_std(self):
        mean = torch.zeros(10, requires_grad=True)
        std = torch.ones(10, requires_grad=True)
        z = sample_reparameterize(mean, std)
        z.sum().backward()
        torch.testing.assert_close(mean.grad, torch.ones(10))
        torch.testing.assert_close(std.grad, z.detach())  # z = 0 + 1 * noise

    def test_a_negative_std_is_refused_with_the_question_whether_it_is_a_log_std(self):
        for requires_grad in (False, True):
            std = torch.tensor([0.1, -2.0], requires_grad=requires_grad)
            with self.assertRaisesRegex(ValueError, "log std"):
                sample_reparameterize(torch.zeros(2), std)


class TestKLD(unittest.TestCase):
    def test_is_the_divergence_from_the_unit_gaussian_of_any_leading_shape(self):
        for shape in ((7,), (5, 3), (2, 3, 4, 7)):
            mean, log_std = torch.randn(2, *shape)
            expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0, 1)).sum(-1)
            torch.testing.assert_close(KLD(mean, log_std), expected)
            self.assertTrue((KLD(torch.zeros(shape), torch.zeros(shape)) == 0).all())

    def test_is_finite_and_positive_for_extreme_stds(self):
        for log_std in (-20.0, 20.0):
            kld = KLD(torch.zeros(1, 20), torch.full((1, 20), log_std))
            self.assertTrue(kld.isfinite().all() and (kld > 0).all())
        near = KLD(torch.zeros(1), torch.full((1,), 1e-4))  # log_std^2, where std^2 - 1 cancels
        torch.testing.assert_close(near, torch.tensor(1e-8), rtol=0.01, atol=0)


class TestLosses(unittest.TestCase):
    def test_reconstruction_loss_is_the_log_likelihood_summed_over_pixels(self):
        x = images(3)
        for layout in (torch.contiguous_format, torch.channels_last):
            logits = torch.randn(3, 16, 28, 28).contiguous(memory_format=layout)
            pixels = Categorical(logits=logits.permute(0, 2, 3, 1))
            expected = -pixels.log_prob(x.squeeze(1)).sum(dim=(1, 2))
            torch.testing.assert_close(reconstruction_loss(logits, x), expected)

    def test_the_sampled_bound_of_the_unit_gaussian_is_on_average_the_one_with_the_kl(self):
        mean, log_std, L_rec = torch.randn(2), torch.randn(2), torch.full((100_000,), 7.0)
        mean, log_std = (each.expand(100_000, 2) for each in (mean, log_std))
        z = sample_reparameterize(mean, log_std.exp())
        found = sampled_negative_elbo(L_rec, z, mean, log_std, unit_gaussian_log_prob(z)).mean()
        torch.testing.assert_close(found, 7 + KLD(mean, log_std)[0], rtol=0.02, atol=0)

    def test_one_bit_per_dimension_is_ln_2_nats_per_dimension(self):
        for shape in ((2, 1, 28, 28), (2, 3, 32, 32)):
            elbo = torch.tensor([1.0, 4.0]) * math.log(2) * math.prod(shape[1:])
            torch.testing.assert_close(elbo_to_bpd(elbo, shape), torch.tensor([1.0, 4.0]))

    def test_mean_image_is_the_expected_grey_level(self):
        logits = torch.full((1, 16, 2, 2), -100.0)
        logits[:, 15], logits[:, 0, 0, 0] = 100.0, 100.0  # one pixel: half black, half white
        expected = torch.tensor([[[[0.5, 1.0], [1.0, 1.0]]]])
        torch.testing.assert_close(mean_image(logits), expected)


def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """The plain iteration that the optimiser does on Gram matrices."""
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(4 if min(matrix.shape) > 1 else 0):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


class TestMuon(unittest.TestCase):
    def test_the_inverse_root_brings_every_singular_value_near_one_and_keeps_zero(self):
        for shape in ((2, 20, 300), (2, 20, 60), (2, 1, 9)):
            x = torch.randn(shape)
            singular = torch.linalg.svdvals(inverse_root(x @ x.mT) @ x)
            self.assertLess((singular - 1).abs().max().item(), 0.4, shape)
            nothing = torch.zeros_like(x)
            self.assertEqual((inverse_root(nothing @ nothing.mT) @ nothing).norm().item(), 0)

    def test_the_inverse_root_is_stable_for_few_directions(self):
        for shape in ((2, 64, 576), (2, 32, 40), (2, 64, 64)):
            n, rows, columns = shape
            row = torch.randn(n, 1, columns)
            for name, x in {
                "rank 1": torch.randn(n, rows, 1) @ row,
                "rank 2": torch.randn(n, rows, 2) @ torch.randn(n, 2, columns),
                "nearly the same rows": row + 1e-3 * torch.randn(shape),
                "the same rows": row.expand(shape),
                "rows of zero": torch.randn(shape) * (torch.rand(n, rows, 1) < 0.3),
            }.items():
                largest = torch.linalg.svdvals(inverse_root(x @ x.mT) @ x)[:, 0]
                self.assertTrue(((largest > 0.6) & (largest < 1.3)).all(), (name, shape))

    def test_a_step_is_the_plain_loop_over_weights_of_any_shape_layout_and_precision(self):
        shapes = [(6, 4, 3, 3), (4, 6, 2, 2), (6, 4, 1, 1), (9, 4), (4, 9), (2, 3, 4), (5,), ()]
        for dtype, layout in itertools.product(
            (torch.double, torch.float, torch.bfloat16),
            (torch.contiguous_format, torch.channels_last),
        ):
            params = [torch.randn(shape, dtype=dtype) for shape in shapes]
            params = [p.contiguous(memory_format=layout) if p.ndim == 4 else p for p in params]
            params = [nn.Parameter(p) for p in params]
            optimizer, averages = Muon(params, lr=0.01), [0.0] * len(shapes)
            for _ in range(3):
                expected = []
                for number, p in enumerate(params):
                    p.grad = torch.randn(p.shape, dtype=dtype)
                    gradient = p.grad.double()
                    averages[number] = average = 0.9 * averages[number] + 0.1 * gradient
                    x = 0.1 * gradient + 0.9 * average
                    x = x.flatten(1) if p.ndim > 1 else x.view(-1, 1)
                    length = 0.05 * max(1, x.shape[0] / x.shape[1]) ** 0.5
                    update = newton_schulz(x if len(x) <= x.shape[1] else x.T)
                    update = (update if len(x) <= x.shape[1] else update.T).reshape(p.shape)
                    expected.append((1 - 0.05 * 0.01) * p.detach().double() - length * update)
                optimizer.step()
                near = {torch.double: 1e-6, torch.float: 1e-5, torch.bfloat16: 0.03}[dtype]
                for p, wanted in zip(params, expected, strict=True):
                    torch.testing.assert_close(p.detach().double(), wanted, atol=near, rtol=near)

    def test_groups_with_adam_take_the_steps_of_adam(self):
        mine, adams = (nn.Parameter(torch.ones(3)) for _ in range(2))
        muon = Muon([{"params": [mine], "adam": True, "lr": 0.01}], lr=1.0)
        adam = torch.optim.Adam([adams], lr=0.01, betas=(0.9, 0.99))
        for _ in range(3):
            mine.grad = adams.grad = torch.randn(3)
            muon.step()
            adam.step()
            torch.testing.assert_close(mine, adams)


class TestManifold(unittest.TestCase):
    def test_is_one_picture_of_all_grid_points(self):
        grid = visualize_manifold(CNNDecoder(num_filters=4, z_dim=2), grid_size=5)
        self.assertEqual(grid.shape, (3, 5 * 28, 5 * 28))
        self.assertTrue(grid.min() >= 0 and grid.max() <= 1)
        self.assertFalse(grid.requires_grad)

    def test_shows_the_normal_percentiles_rightwards_and_upwards(self):
        class Recorder(nn.Module):
            z_dim = 2

            def forward(self, z):
                self.z = z
                return torch.zeros(len(z), 16, 28, 28)

        decoder = Recorder()
        decoder.where = nn.Parameter(torch.zeros(1))
        visualize_manifold(decoder, grid_size=4)
        z = decoder.z.view(4, 4, 2)
        percentiles = Normal(0, 1).cdf(z)
        expected = torch.tensor([0.125, 0.375, 0.625, 0.875])
        torch.testing.assert_close(percentiles[0, :, 0], expected)
        torch.testing.assert_close(percentiles[:, 0, 1], expected.flip(0))

    def test_another_latent_size_is_refused_by_name(self):
        with self.assertRaisesRegex(ValueError, "z_dim 2.*20"):
            visualize_manifold(CNNDecoder(num_filters=4, z_dim=20))


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None):
    """unittest's own hook: adds the files of tests/."""
    tests.addTests(
        loader.loadTestsFromName(f"tests.{file.stem}") for file in sorted(TESTS.glob("test_*.py"))
    )
    return tests


if __name__ == "__main__":
    unittest.main()
