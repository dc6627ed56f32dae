"""Compression: whole numbers that are exact, round trips, their rates, what an archive refuses."""

import unittest
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import tiny  # noqa: F401  for the path of what is tested
import torch
from torch import nn

import fmnist
from benchmarks import low_bits_training
from benchmarks.archives import negative_elbo
from compress import decode, encode
from compression import archive as archive_module
from compression import exact, low_bits
from compression.archive import OVERHEAD, STORED, Header, read_archive, write_archive
from compression.codec import Codec
from compression.exact import LIMIT, ONE, WEIGHT_ONE, dense, describe, linear, prepare, whole
from compression.latents import LOG_STDS, RADIUS, TABLE, TAILS, WINDOWS, Posterior, Stack
from compression.low_bits import LEVEL, OFFSET, Pixels
from compression.whole_model import WholeModel, unpack, whole_model
from inputs.command_line import InputError
from inputs.files import read_idx
from prior import LatentPrior
from vae import PRETRAINED, VAE, load_model

PIXELS = 28 * 28


@torch.no_grad()
def small_model(seed: int = 0, num_classes: int = 10, num_levels: int = 16, width: int = 24) -> VAE:
    """Random weights, large enough for every image to have a posterior of its own."""
    torch.manual_seed(seed)
    model = VAE(num_filters=2, z_dim=3, num_classes=num_classes, num_levels=num_levels).eval()
    model.prior = LatentPrior(3, width, num_classes=num_classes)
    for weights in model.parameters():
        weights.copy_(0.3 * torch.randn_like(weights))
    for weights in model.prior.parameters():  # mixtures that differ, with finite densities
        weights.mul_(0.3)
    model.decoder.net[-1].weight.mul_(0.1)
    model.decoder.net[-1].bias[: num_levels // 2] += 4  # so that `dark` images cost less
    return model


@torch.no_grad()
def small_low_bits(seed: int = 0) -> low_bits_training.LowBits:
    """Random weights, large enough for every input to matter."""
    torch.manual_seed(seed)
    model = low_bits_training.LowBits(width=12, heads=2, key_dim=3).eval()
    for weights in model.parameters():
        weights.copy_(0.15 * torch.randn_like(weights))
    return model


def grey_model(seed: int = 0) -> WholeModel:
    """Small networks for 256 grey levels."""
    model, more = whole_model(small_model()), small_low_bits(seed).whole_numbers()
    return model._replace(levels=256, weights=[*model.weights, *more.values()])


@cache
def digits() -> np.ndarray:
    """The first 500 test images: uint8 [500, 28, 28], 0..255."""
    fmnist.prepare()
    return read_idx(fmnist.DATA_DIR / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz")[:500].copy()


def noise(count: int, levels: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, levels, (count, 28, 28), dtype=np.uint8)


def dark(count: int, levels: int = 16) -> np.ndarray:
    """Noise of which a model can know something: it has the lower half of the levels only."""
    return noise(count, levels) // 2


class TestExact(unittest.TestCase):
    def test_tables_are_the_functions_rounded(self):
        x = np.arange(-LIMIT, LIMIT + 1) / ONE
        silu = torch.nn.functional.silu(torch.from_numpy(x)).numpy()
        self.assertLessEqual(np.abs(exact.SILU - ONE * silu).max(), 0.5 + 1e-9)
        t = np.arange(len(exact.EXP))
        self.assertLessEqual(np.abs(exact.EXP - 2**30 * np.exp(-t / ONE)).max(), 0.51)
        large = np.floor(2 ** (52 * np.random.default_rng(0).random(9999)))
        error = exact.log(large) - ONE * np.log(large / 2**30)
        self.assertLess(np.abs(error).max(), 1.1)

    def test_products_are_those_of_unlimited_integers_up_to_the_largest_that_are_allowed(self):
        rng = np.random.default_rng(0)
        numbers = rng.integers(-(2**31) + 1, 2**31, (50, 4)).astype(np.int32)
        bias = rng.integers(-(2**31) + 1, 2**31, 4).astype(np.int32)
        matrix = dense(iter([numbers, bias]))
        x = rng.choice([-LIMIT, LIMIT, LIMIT - 1], (30, 50))
        total = x.astype(object) @ numbers.astype(object) + ONE * bias.astype(object)
        expected = (2 * total + WEIGHT_ONE) // (2 * WEIGHT_ONE)
        order = rng.permutation(50)
        for columns in (slice(None), order):
            found = linear(x[:, columns].astype(float), matrix[0][columns], matrix[1])
            self.assertTrue((found.astype(np.int64) == expected).all())

    def test_no_layer_is_given_more_than_the_limit(self):
        large, zero = np.full((1, 1), 2**30, np.int32), np.zeros(1, np.int32)
        for between in (
            *([], [["residual", []]], [["relu"]], [["silu"]]),
            [["unflatten", 1, 1, 1], ["flatten"]],
        ):
            network = prepare([["linear"], *between, ["linear"]], iter([large, zero] * 2))
            self.assertEqual(network(np.full((1, 1), 1.0 * LIMIT)), LIMIT * 2.0**18)

    def test_weights_beyond_exact_sums_or_no_numbers_are_refused(self):
        column = np.full((2**7, 1), 2**31 - 1, np.int32)
        with self.assertRaisesRegex(InputError, "too large"):
            dense(iter([column, np.zeros(1, np.int32)]))
        for value in (torch.nan, torch.inf, 2.0**19):
            with self.assertRaisesRegex(InputError, "no numbers, or too large"):
                whole(torch.tensor([value]))

    def test_networks_on_whole_numbers_are_those_of_torch(self):
        model, weights = small_model(), []
        layers = [describe(net, weights) for net in (model.encoder, model.decoder)]
        prepared = iter(weights)
        encode_, decode_ = (prepare(each, prepared) for each in layers)
        x, z = dark(5), torch.randn(5, 3)
        with torch.no_grad():
            outputs = torch.cat(model.encoder(torch.from_numpy(x).long().unsqueeze(1)), dim=1)
            logits = model.decoder(z).permute(0, 2, 3, 1)
        codec = Codec(whole_model(model))
        inputs = codec.inputs[x][..., np.newaxis]
        for found, expected in ((encode_(inputs), outputs), (decode_(ONE * z.numpy()), logits)):
            found, expected = found / ONE, expected.numpy()
            self.assertLess(np.abs(found - expected).max(), 0.05)
        bins = np.random.default_rng(0).integers(-99, 99, (5, 3), np.int32)
        y = np.array([0, 1, 9, 3, 3], np.int32)
        with torch.no_grad():
            labels = torch.from_numpy(y).long()
            _, means, _ = model.prior.conditionals(torch.from_numpy(bins) / 64, labels)
        found = codec.prior.mixtures(bins).at(np.arange(5), y)
        self.assertLess(np.abs(found.means / ONE - means.numpy()).max(), 0.05)
        stepwise = list(codec.prior.steps(y, bins))
        for i, step in enumerate(stepwise):
            for one, all_ in zip(step, found.at(slice(None), i), strict=True):
                self.assertTrue(np.array_equal(one, all_))

    def test_the_entropy_coder_divides_once_multiplies_and_rounds_down_and_does_no_more(self):
        rng = np.random.default_rng(0)
        for size in (2, 16, 513):
            weights = np.floor(2.0**30 * rng.random(size) ** 8) + 1
            share = (2**24 - size) / weights.sum()
            ends = np.floor((weights.cumsum() - weights) * share).astype(int) + np.arange(size)
            for symbol in range(1, size):
                for place, expected in ((ends[symbol], symbol), (ends[symbol] - 1, symbol - 1)):
                    stack = Stack(np.array([place, 1], np.uint32))
                    self.assertEqual(stack.decode(TABLE, weights[np.newaxis])[0], expected)

    def test_convolutions_of_any_kernel_stride_and_padding_are_those_of_torch(self):
        x = torch.randint(-LIMIT, LIMIT, (2, 3, 8, 8)).double()
        for sizes in ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 3, 2), (2, 1, 0)):
            for kind in (nn.Conv2d, nn.ConvTranspose2d) if sizes == (2, 1, 0) else (nn.Conv2d,):
                kernel, stride, padding = sizes if kind is nn.Conv2d else (2, 2, 0)
                layer, weights = kind(3, 4, kernel, stride, padding, bias=False).double(), []
                with torch.no_grad():
                    layer.weight.mul_(WEIGHT_ONE).round_().div_(WEIGHT_ONE)
                    expected = (layer(x) + 0.5).floor().permute(0, 2, 3, 1).numpy()
                network = prepare(describe(layer, weights), iter(weights))
                found = network(x.permute(0, 2, 3, 1).numpy())
                self.assertTrue(np.array_equal(found, expected))

    def test_what_torch_is_set_to_plays_no_part(self):
        model, images = small_model(), digits()[:1]
        archive = encode(images, model, levels=256)
        self.addCleanup(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
            self.assertEqual(encode(images, model, levels=256), archive)
            self.assertTrue(np.array_equal(decode(archive, model), images))
        self.assertEqual(encode(images, model.double(), levels=256), archive)

    def test_layers_priors_and_likelihoods_that_it_does_not_know_are_refused_by_name(self):
        model = small_model()
        model.decoder.net.append(nn.Tanh())
        with self.assertRaisesRegex(InputError, r"^[^\n]*Tanh\(\)[^\n]*exact.py[^\n]*$"):
            whole_model(model)
        for layer in (
            *(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same")),
            *(nn.ConvTranspose2d(4, 4, 3, 2), nn.ConvTranspose2d(4, 4, 2, 2, padding=1)),
        ):
            with self.assertRaisesRegex(InputError, "no archive can be made with"):
                describe(layer, [])
        model = small_model()
        model.prior = nn.Identity()
        with self.assertRaisesRegex(InputError, "prior's class_embedding, which Identity lacks"):
            whole_model(model)
        own = type("Own", (VAE,), {"log_px": None})(num_filters=2, z_dim=3)
        with self.assertRaisesRegex(InputError, "archives need p.* Own has a log_px of its own"):
            whole_model(own)


class TestRoundTrips(unittest.TestCase):
    """What must come back as it was, whatever the model."""

    def assert_comes_back(self, codec: Codec, images: np.ndarray) -> Header:
        archive = codec.encode(images)
        decoded = codec.decode(archive)
        self.assertEqual((decoded.dtype, decoded.shape), (images.dtype, images.shape))
        self.assertTrue(np.array_equal(decoded, images))
        bits = (codec.model.levels - 1).bit_length()
        self.assertLessEqual(len(archive), OVERHEAD + images.size * bits // 8)
        return read_archive(archive).header

    def test_all_images_come_back_in_any_number_order_and_shape(self):
        small = (whole_model(small_model(num_levels=levels)) for levels in (2, 16))
        for model, count in (*zip(small, (70, 70), strict=True), (grey_model(), 9)):
            codec, white = Codec(model), np.uint8(model.levels - 1)
            grey, black = digits()[:count] // (255 // white), np.zeros((5, 28, 28), np.uint8)
            nearly_black = black.copy()
            nearly_black[0, 3, 3], nearly_black[1, 20, 20] = min(white, 7), 1
            for images in (
                *(grey[::-1], noise(5, model.levels), black, nearly_black, black + white),
                *(grey[:few][shape] for few in (1, 0) for shape in (..., np.s_[:, None])),
            ):
                with self.subTest(levels=model.levels, shape=images.shape):
                    self.assert_comes_back(codec, images)

    def test_every_number_of_images_comes_back_and_is_not_stored_as_it_is(self):
        codec = Codec(whole_model(small_model()))
        with mock.patch("compression.codec.BATCH", 8):
            for count in range(2, 30, 5):
                self.assertFalse(self.assert_comes_back(codec, dark(count)).form & STORED)
        codec.prior.least = 10**6  # words of the stack that have to stay
        self.assertTrue(self.assert_comes_back(codec, dark(2)).form & STORED)
        codec, tops = Codec(grey_model()), digits()[:9].copy()
        tops[:, 12:] = 0
        for few in ({"MOST_IMAGES": 4}, {"MOST_PIXELS": 200}):
            with mock.patch.multiple(low_bits, **few):
                self.assert_comes_back(codec, tops)

    def test_any_number_of_classes_and_gaussians_comes_back(self):
        for num_classes, num_components in ((1, 1), (2, 1), (47, 8)):
            model = small_model(num_classes=num_classes)
            model.prior = LatentPrior(3, 2, num_components, num_classes)  # not every latent a unit
            codec = Codec(whole_model(model))
            self.assertFalse(self.assert_comes_back(codec, dark(9)).form & STORED)

    @torch.no_grad()
    def test_posteriors_beyond_the_grid_or_below_a_bin_cost_bits_but_no_pixel(self):
        for value in (-60.0, 60.0):
            model = small_model()
            model.encoder.net[-1].bias.fill_(value)
            self.assert_comes_back(Codec(whole_model(model)), dark(9))

    def test_grey_images_start_up_with_their_low_bits(self):
        grey = Codec(grey_model()).encode(digits()[:1])
        plain = encode(fmnist.four_bit(digits()[:1]), small_model())
        startups = [read_archive(archive).header.startup for archive in (grey, plain)]
        self.assertLess(*startups)

    def test_an_archive_with_its_model_needs_nothing_else(self):
        for model, images in ((small_model(), dark(3)), (small_model(num_levels=2), noise(3, 2))):
            archive = encode(images, model, with_model=True)
            self.assertTrue(np.array_equal(decode(archive), images))
            with self.assertRaisesRegex(InputError, "does not contain its model"):
                decode(encode(images, model))
        packed = whole_model(small_model(), 256).packed
        self.assertEqual(unpack(packed).packed, packed)


class TestRate(unittest.TestCase):
    def test_an_image_costs_its_negative_elbo_with_the_learned_prior(self):
        model, images = load_model(PRETRAINED), fmnist.four_bit(digits()[:60])
        header, content, *_ = read_archive(encode(images, model))
        bits = (8 * len(content) - 32 * header.startup) / len(images)
        # The draws of z differ; a class y that did not come back would be 3.3 bits more.
        self.assertAlmostEqual(bits, PIXELS * negative_elbo(model, images), delta=1.5)

    def test_the_low_bits_cost_what_their_model_says(self):
        model, images, stack = small_low_bits(), digits()[:20], Stack()
        network = low_bits.LowBits(iter(model.whole_numbers().values()))
        network.push(stack, images, lambda parts, desc: parts)
        bits = low_bits_training.bits_per_pixel(model, images) * images.size
        self.assertAlmostEqual(stack.num_bits() / bits, 1, delta=0.003)
        stack = Stack()
        low_bits.LowBits(iter(low_bits.load())).push(stack, images, lambda parts, desc: parts)
        self.assertLess(stack.num_bits() / images.size, 0.5)

    def test_no_draw_from_a_posterior_is_further_off_than_its_window(self):
        rng = np.random.default_rng(0)
        mean, log_std = rng.integers(-1300, 1300, (50, 3)), rng.integers(-1800, 500, (50, 3))
        posterior = Posterior.of(mean.astype(float), log_std.astype(float))
        z = posterior.pop(Stack(rng.integers(1, 2**32, 5000, dtype=np.uint32)))
        self.assertTrue((np.abs(z - posterior.centre) <= posterior.window).all())
        self.assertTrue((np.abs(z) <= RADIUS).all())
        std = 64 * np.exp(log_std.ravel() / ONE) / 1.04  # rounded to sixteenths
        fits = posterior.window >= np.minimum(TAILS * std, WINDOWS[-1])
        self.assertTrue(fits.all())
        self.assertEqual(posterior.std.max() + LOG_STDS[0], 22)  # 256 bins, in sixteenths of a nat
        posterior.push(Stack(), z + np.int32(999))  # as in no archive that was encoded here


class TestRefusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = small_model()
        cls.codec = Codec(whole_model(cls.model))
        cls.archive = cls.codec.encode(dark(1))

    def assert_refused(self, archive: bytes, said: str = "") -> None:
        with self.assertRaisesRegex(InputError, f"^[^\n]*{said}[^\n]*$"):
            self.codec.decode(archive)

    def test_grey_levels_that_are_not_those_of_the_model_are_refused(self):
        for own, levels, said in ((16, 2, "16 or 256"), (16, 8, "16 or 256"), (2, 256, "with 2 ")):
            with self.assertRaisesRegex(InputError, f"{said}.*got {levels}"):
                whole_model(small_model(num_levels=own), levels)

    def test_a_model_of_the_low_bits_that_is_missing_is_refused_by_name(self):
        for path in (Path("nothing.npz"), Path(__file__)):
            with self.assertRaisesRegex(InputError, f"{path.name} cannot be used.*repository"):
                low_bits.load(path)

    def test_what_is_no_whole_archive_is_refused(self):
        for place in range(len(self.archive)):
            altered = bytearray(self.archive)
            altered[place] ^= 1 << place % 8
            self.assert_refused(bytes(altered), "no archive|truncated or altered")
            self.assert_refused(self.archive[:place], "no archive|truncated or altered")
        for more in (b"\0", b"\0\0\0\0", self.archive):
            self.assert_refused(self.archive + more, "truncated or altered")
        for other in (b"\x93NUMPY", bytes(1000)):
            self.assert_refused(other, "no archive")

    def test_another_version_is_refused_with_what_reads_it(self):
        archive = read_archive(self.archive)
        for version, said in ((7, "the program that made it"), (3, "commit 52233d3")):
            with mock.patch.object(archive_module, "VERSION", version):
                other = write_archive(archive)
            self.assert_refused(other, f"version {version}.*version 4.*{said}")

    def test_another_model_is_refused_with_its_name_and_both_digests(self):
        grey = Codec(grey_model())
        for encoder, decoder in (
            (self.codec, Codec(whole_model(small_model(seed=1)))),
            (grey, Codec(grey_model(seed=1))),
            (grey, self.codec),
        ):
            said = f"another model, a/b.ckpt, .*{encoder.digest.hex()}.*{decoder.digest.hex()}"
            with self.assertRaisesRegex(InputError, said):
                decoder.decode(encoder.encode(dark(1), model_name="a/b.ckpt"))

    def test_names_of_files_outside_the_folder_are_refused(self):
        archive = read_archive(self.archive)
        for name in ("../x.png", "/x.png", "a/../../x.png", "..", ""):
            packed = write_archive(archive._replace(names=["1.png", name]))
            self.assert_refused(packed, "outside its folder")
        names = ("7/a.png", "ü \udcff\n.png", r"c:\x.png")
        self.assertEqual(tuple(read_archive(self.codec.encode(noise(3), names)).names), names)


class TestLowBits(unittest.TestCase):
    def test_step_by_step_they_are_what_all_at_once_gives_and_near_the_model_in_training(self):
        # That they know nothing of later offsets is what brings all images back.
        model, values = small_low_bits(), noise(3, 256)
        values[:, :, :9] = 0  # something for the fixed probability
        pixels = Pixels(LEVEL[values])
        network = low_bits.LowBits(iter(model.whole_numbers().values()))
        offset, unknown = OFFSET[values][pixels.where], np.zeros_like(pixels.level)
        at_once = np.concatenate(
            [w for _, w in network.conditionals(pixels, offset, pixels.chunks)]
        )
        for step, weights in network.conditionals(pixels, unknown, pixels.steps):
            self.assertTrue(np.array_equal(weights, at_once[step]))
            unknown[step] = offset[step]
        possible = np.arange(24) < np.array([8, *[16] * 14, 24])[pixels.level][:, np.newaxis]
        self.assertTrue(np.array_equal(at_once > 0, possible))
        with torch.inference_mode():
            nats = model(values).numpy()
        found = -np.log(at_once[np.arange(len(offset)), offset] / at_once.sum(1))
        np.testing.assert_allclose(found, nats, atol=0.05)
