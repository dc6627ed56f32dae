"""Compression: exact round trips, their rates, what an archive refuses, general codecs."""

import copy
import threading
import unittest
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import fmnist
from benchmarks.archives import negative_elbo
from benchmarks.low_bits_training import bits_per_pixel
from compress import decode, encode
from compression import archive as archive_module
from compression import codec as codec_module
from compression import low_bits
from compression.archive import OVERHEAD, STORED, Archive, Header, read_archive, write_archive
from compression.codec import Codec, batches
from compression.latents import RADIUS, TAILS, Posterior, Stack
from compression.low_bits import LEVEL, OFFSET, LowBits, Pixels
from inputs.command_line import InputError
from inputs.files import read_idx
from prior import LatentPrior
from train_pl import PRETRAINED, VAE, load_model

PIXELS = 28 * 28


@torch.no_grad()
def small_model(seed: int = 0, num_classes: int = 10) -> VAE:
    """Random weights, large enough for every image to have a posterior of its own."""
    torch.manual_seed(seed)
    model = VAE(num_filters=2, z_dim=3, num_classes=num_classes).eval()
    for weights in model.parameters():
        weights.copy_(0.3 * torch.randn_like(weights))
    for weights in model.prior.parameters():  # mixtures that differ, with finite densities
        weights.mul_(0.3)
    model.decoder.net[-1].weight.mul_(0.1)
    model.decoder.net[-1].bias[:8] += 4  # so that `dark` images are not stored as they are
    return model


@torch.no_grad()
def know_blackness() -> VAE:
    """Certain that every image is black: one more costs the archive half a byte."""
    model = small_model()
    for weights in model.parameters():
        weights.zero_()
    model.decoder.net[-1].bias[0] = 50
    model.encoder.net[-1].bias[model.decoder.z_dim :] = -1.5  # the log std
    return model


@torch.no_grad()
def small_low_bits(seed: int = 0) -> LowBits:
    """Random weights, large enough for every input to matter."""
    torch.manual_seed(seed)
    model = LowBits(width=12, heads=2, key_dim=3).eval()
    for weights in model.parameters():
        weights.copy_(0.15 * torch.randn_like(weights))
    return model


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


class TestRoundTrips(unittest.TestCase):
    """What must come back as it was, whatever the model."""

    @classmethod
    def setUpClass(cls):
        cls.shipped, cls.small = load_model(PRETRAINED), small_model()

    def assert_comes_back(self, codec: Codec, images: np.ndarray) -> Header:
        archive = codec.encode(images)
        decoded = codec.decode(archive)
        self.assertEqual((decoded.dtype, decoded.shape), (images.dtype, images.shape))
        self.assertTrue(np.array_equal(decoded, images))
        self.assertLessEqual(len(archive), OVERHEAD + images.size * codec.bits // 8)
        return read_archive(archive).header

    def test_all_images_come_back_in_any_number_order_and_shape(self):
        order = np.random.default_rng(0).permutation(70)
        for codec in (
            Codec(self.small),
            Codec(self.shipped),
            Codec(self.small, small_low_bits()),
        ):
            grey, white = digits() >> (8 - codec.bits), 2**codec.bits - 1
            one_color = np.zeros((50, 28, 28), np.uint8)
            for images in (
                *(grey[:70], grey[order], noise(10, white + 1), one_color, one_color + white),
                *(grey[:count][shape] for count in (1, 0) for shape in (..., np.s_[:, None])),
            ):
                with self.subTest(bits=codec.bits, shape=images.shape):
                    self.assert_comes_back(codec, images)

    def test_every_number_of_images_comes_back_and_is_not_stored_as_it_is(self):
        for count in range(2, 70, 7):
            self.assertFalse(self.assert_comes_back(Codec(self.small), dark(count)).form & STORED)

    def test_any_number_of_classes_and_gaussians_comes_back(self):
        for num_classes, num_components in ((1, 1), (2, 1), (47, 8)):
            model = small_model(num_classes=num_classes)
            model.prior = LatentPrior(3, num_components=num_components, num_classes=num_classes)
            self.assertFalse(self.assert_comes_back(Codec(model), dark(20)).form & STORED)

    def test_posteriors_beyond_the_grid_or_below_a_bin_cost_bits_but_no_pixel(self):
        for value in (-60.0, 60.0):
            model = small_model()
            with torch.no_grad():
                model.encoder.net[-1].bias.fill_(value)
            self.assert_comes_back(Codec(model), dark(40))

    def test_images_that_empty_the_stack_are_stored_as_they_are(self):
        codec = Codec(self.small)
        codec.least = 10**6  # words of the stack that have to stay
        self.assertTrue(self.assert_comes_back(codec, dark(2)).form & STORED)

    def test_grey_values_that_are_plainly_black_and_yet_not_zero_come_back(self):
        images = np.zeros((2, 28, 28), np.uint8)
        images[0, 3, 3], images[1, 20, 20] = 7, 1
        self.assert_comes_back(Codec(self.small, small_low_bits()), images)

    def test_more_grey_images_than_a_batch_come_back(self):
        codec = Codec(self.small, small_low_bits())
        for few in ({"MOST_IMAGES": 4}, {"MOST_PIXELS": 700}):
            with mock.patch.multiple(low_bits, **few):
                for count in (3, 9):
                    self.assert_comes_back(codec, digits()[:count])

    def test_grey_images_start_up_with_their_low_bits(self):
        grey = Codec(self.small, small_low_bits()).encode(digits()[:1])
        plain = Codec(self.small).encode(fmnist.four_bit(digits()[:1]))
        startups = [read_archive(archive).header.startup for archive in (grey, plain)]
        self.assertLess(*startups)

    def test_the_shipped_model_of_the_low_bits_is_what_encode_and_decode_take(self):
        self.assertLess(low_bits.WEIGHTS.stat().st_size, 1_000_000)
        archive = encode(digits()[:3], self.small, levels=256)
        self.assertTrue(np.array_equal(decode(archive, self.small), digits()[:3]))
        weights = codec_module.fingerprint(self.small, low_bits.load())
        self.assertEqual(read_archive(archive).header.weights, weights)


class TestRate(unittest.TestCase):
    def test_the_rate_is_the_negative_elbo(self):
        model, images = load_model(PRETRAINED), fmnist.four_bit(digits())
        rate = 8 * len(encode(images, model)) / images.size
        self.assertAlmostEqual(rate / negative_elbo(model, images), 1, delta=0.006)

    def test_the_low_bits_cost_what_their_model_says(self):
        model, images, stack = small_low_bits(), digits()[:20], Stack()
        with torch.inference_mode():
            model.push(stack, images, lambda parts, desc: parts)
        bits = bits_per_pixel(model, torch.from_numpy(images)) * images.size
        self.assertAlmostEqual(stack.num_bits() / bits, 1, delta=0.003)
        rate = bits_per_pixel(low_bits.load(), torch.from_numpy(digits()[:100]))
        self.assertLess(rate, 0.5)

    def test_a_black_image_more_costs_a_model_that_is_certain_of_it_half_a_byte(self):
        few, many = (np.zeros((count, 28, 28), np.uint8) for count in (100, 600))
        codec = Codec(know_blackness())
        archives = [codec.encode(images) for images in (few, many)]
        self.assertLess(len(archives[1]) - len(archives[0]), 500)  # fewer bytes than images
        self.assertTrue(np.array_equal(codec.decode(archives[1]), many))

    def test_z_costs_what_the_learned_prior_says_with_its_classes_and_mixtures(self):
        model, images = small_model(), dark(200)
        x = torch.from_numpy(images).long().unsqueeze(1)
        with torch.no_grad():
            model.encoder.net[-1].weight.mul_(0.1)
            model.encoder.net[-1].bias[3:] -= 2  # the log std
            mean, log_std = model.encoder(x)
            z = mean + log_std.exp() * torch.randn(50, *mean.shape)
            log_pz = model.prior.log_prob(z.flatten(0, 1)).mean().item() / np.log(2)
            log_unit = -0.5 * (z.square() + np.log(2 * np.pi)).sum(2).mean().item() / np.log(2)
        plain = copy.deepcopy(model)
        plain.prior = LatentPrior(model.decoder.z_dim, num_components=1, num_classes=1)
        contents = [read_archive(encode(images, m)).content for m in (model, plain)]
        costs = [8 * len(content) / len(images) for content in contents]
        # The draws of z differ; a y or k that did not come back would be 3 bits more, or 8.
        self.assertAlmostEqual(costs[1] - costs[0], log_pz - log_unit, delta=1)

    def test_no_draw_from_a_posterior_is_further_off_than_its_window(self):
        with torch.inference_mode():
            x = torch.from_numpy(noise(50)).long().unsqueeze(1)
            posterior = Posterior.in_bins(*small_model().encoder(x))
        words = np.random.default_rng(0).integers(1, 2**32, 5000, dtype=np.uint32)
        z = posterior.pop(Stack(words))
        mean = posterior.centre + posterior.mean
        self.assertTrue((np.abs(z - posterior.centre) <= posterior.window).all())
        self.assertTrue((np.abs(z) <= RADIUS).all())
        reach = np.minimum(RADIUS - np.abs(mean), TAILS * posterior.std)
        self.assertTrue((posterior.window + 1 >= np.minimum(reach, RADIUS)).all())

    def test_no_batch_is_larger_than_what_was_encoded_before_it_and_one(self):
        for count in range(200):
            done = 0
            for part in reversed(batches(count)):
                size = part.stop - part.start
                self.assertEqual(part.stop, count - done)
                self.assertTrue(1 <= size <= min(codec_module.BATCH, done + 1))
                done += size
            self.assertEqual(done, count)

    def test_every_grey_image_is_in_one_batch_which_takes_little_memory(self):
        blank, white = np.zeros((2000, 28, 28), np.uint8), np.full((100, 28, 28), 15, np.uint8)
        images = np.concatenate([white, blank, fmnist.four_bit(digits())])
        parts = low_bits.together(images)
        self.assertEqual(sorted(np.concatenate(parts)), list(range(len(images))))
        for part in parts:
            self.assertLessEqual(len(part), low_bits.MOST_IMAGES)
            pixels = low_bits.near_ink(torch.from_numpy(images[part])).sum()
            self.assertLess(pixels, low_bits.MOST_PIXELS + PIXELS)


class TestArithmetic(unittest.TestCase):
    def test_the_callers_settings_change_no_byte_and_are_left_alone(self):
        self.addCleanup(codec_module.set_arithmetic, *codec_module.arithmetic())
        codec, images = Codec(load_model(PRETRAINED), low_bits.load()), digits()[:3]
        failing = Codec(broken())
        archive = codec.encode(images)
        for set_one in (
            lambda: torch.set_num_threads(3),
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: setattr(torch.backends.mkldnn, "enabled", False),
            lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
            lambda: torch.set_default_dtype(torch.float64),
        ):
            set_one()
            before = codec_module.arithmetic()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                with codec_module.reproducible_arithmetic():
                    pinned = (1, torch.float32, True, "ieee", "ieee")
                    self.assertEqual(codec_module.arithmetic(), pinned)
                    self.assertFalse(torch.is_autocast_enabled("cpu"))
                self.assertEqual(codec.encode(images), archive)
                self.assertTrue(np.array_equal(codec.decode(archive), images))
                self.assertTrue(torch.is_autocast_enabled("cpu"))
            self.assertEqual(codec_module.arithmetic(), before)
            with self.assertRaises(FloatingPointError):
                failing.encode(dark(1))
            self.assertEqual(codec_module.arithmetic(), before)

    def test_model_and_random_stream_are_left_alone_and_change_nothing(self):
        model = small_model()
        archive = encode(dark(20), model)
        model.train().to(memory_format=torch.contiguous_format)
        weights = copy.deepcopy(model.state_dict())
        torch.manual_seed(99)
        before = torch.get_rng_state()
        self.assertEqual(encode(dark(20), model), archive)
        decode(archive, model)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))
        self.assertTrue(model.training and model.encoder.training)
        for name, tensor in model.state_dict().items():
            self.assertTrue(torch.equal(tensor, weights[name]))
            self.assertTrue(tensor.is_contiguous())

    def test_a_machine_that_rounds_differently_gets_an_error_and_no_image(self):
        for part in ("decoder", "low_bits"):
            codec = Codec(small_model(), small_low_bits())
            archive = codec.encode(digits()[:5])
            with torch.no_grad():
                next(getattr(codec, part).parameters()).mul_(1.01)
            with self.assertRaisesRegex(InputError, "do not match.*versions.*processor"):
                codec.decode(archive)

    def test_two_threads_take_turns(self):
        # Who ends first would give the other one all of torch's threads, and so other roundings.
        entered = threading.Event()

        def other() -> None:
            with codec_module.reproducible_arithmetic():
                entered.set()

        thread = threading.Thread(target=other)
        with codec_module.reproducible_arithmetic():
            thread.start()
            self.assertFalse(entered.wait(0.2))
        thread.join()
        self.assertTrue(entered.is_set())


@torch.no_grad()
def broken() -> VAE:
    model = small_model()
    model.decoder.net[-1].bias.fill_(torch.inf)
    return model


class TestRefusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = small_model()
        cls.codec = Codec(cls.model)
        cls.archive = cls.codec.encode(dark(1))

    def assert_refused(self, archive: bytes, said: str = "") -> None:
        with self.assertRaisesRegex(InputError, f"^[^\n]*{said}[^\n]*$"):
            self.codec.decode(archive)

    def test_images_of_another_dtype_shape_or_range_are_refused(self):
        for images, kind, said in [
            (noise(2).astype(np.int64), TypeError, "uint8.*int64"),
            (noise(2) / 15, TypeError, "uint8.*float64"),
            (noise(2)[:, :27], ValueError, r"\[2, 27, 28\]"),
            (noise(2)[0], ValueError, r"\[28, 28\]"),
            (noise(2).reshape(1, 2, 28, 28), ValueError, r"\[1, 2, 28, 28\]"),
            (np.uint8(3), ValueError, r"\[\]"),
            (noise(2) + np.uint8(1), ValueError, "0..15.*16"),
        ]:
            with self.subTest(said), self.assertRaisesRegex(kind, said):
                encode(images, self.model)

    def test_models_that_cannot_code_are_refused(self):
        with self.assertRaisesRegex(ValueError, "float32 on the CPU.*float64"):
            encode(noise(1), small_model().double())
        with self.assertRaisesRegex(FloatingPointError, "not finite"):
            encode(noise(1), broken())

    def test_a_wrong_number_of_levels_is_refused(self):
        with self.assertRaisesRegex(ValueError, "16 or 256.*8"):
            encode(noise(1), self.model, levels=8)

    def test_a_model_of_the_low_bits_that_is_missing_is_refused_by_name(self):
        with self.assertRaisesRegex(InputError, "nothing.pt cannot be used.*repository"):
            low_bits.load(Path("nothing.pt"))

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

    def test_another_version_is_refused_with_both_numbers(self):
        archive = read_archive(self.archive)
        with mock.patch.object(archive_module, "VERSION", 7):
            other = write_archive(archive)
        self.assert_refused(other, "version 7.*version 3.*checkpoint that made it")

    def test_another_model_is_refused_with_both_fingerprints(self):
        grey = Codec(self.model, small_low_bits())
        for encoder, decoder in (
            (self.codec, Codec(small_model(seed=1))),
            (grey, Codec(self.model, small_low_bits(seed=1))),
            (grey, self.codec),
        ):
            prints = f"{encoder.weights.hex()}.*{decoder.weights.hex()}"
            with self.assertRaisesRegex(InputError, f"another checkpoint.*{prints}"):
                decoder.decode(encoder.encode(dark(1)))

    def test_pixels_that_are_not_those_of_the_checksum_are_refused(self):
        header, content, _ = read_archive(self.archive)
        for false in ({"pixels": header.pixels ^ 1}, {"count": 2}):
            with self.subTest(**false):
                archive = Archive(header._replace(**false), content)
                self.assert_refused(write_archive(archive), "do not match")

    def test_names_of_files_outside_the_folder_are_refused(self):
        archive = read_archive(self.archive)
        for name in ("../x.png", "/x.png", "a/../../x.png", "..", ""):
            packed = write_archive(archive._replace(names=["1.png", name]))
            self.assert_refused(packed, "outside its folder")
        names = ("7/a.png", "ü \udcff\n.png", r"c:\x.png")
        self.assertEqual(tuple(read_archive(self.codec.encode(noise(3), names)).names), names)


class TestLowBits(unittest.TestCase):
    def test_step_by_step_they_are_probabilities_of_the_levels_offsets_as_in_training(self):
        # That they know nothing of later offsets is what brings all images back.
        model, values = small_low_bits(), torch.from_numpy(noise(3, 256)).long()
        values[:, :, :9] = 0  # something for the fixed probability
        pixels = Pixels(LEVEL[values])
        offset = OFFSET[values][pixels.where]
        with torch.inference_mode():
            probabilities = torch.cat([p for _, p in model.conditionals(pixels, offset)])
            nats = model(values)
        possible = torch.arange(24) < torch.tensor([8, *[16] * 14, 24])[pixels.level].unsqueeze(1)
        self.assertTrue(torch.equal(probabilities > 0, possible))
        torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))
        stepwise = -probabilities.gather(1, offset.unsqueeze(1)).squeeze(1).log()
        torch.testing.assert_close(stepwise, nats, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
