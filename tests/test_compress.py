"""Compression: exact round trips, rates, damaged and hostile archives, and the command line."""

import copy
import gzip
import os
import struct
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from unittest import mock

import forked
import numpy as np
import torch
from PIL import Image
from tiny import InFolder, save_model

import compress
import fmnist
from boundary.command_line import InputError
from compress import PRETRAINED, decode, encode
from compression import archive as archive_module
from compression import bench, general_codecs
from compression import codec as codec_module
from compression.archive import CHECKSUM, HEADER, OVERHEAD, Header, seal
from compression.codec import Codec, batches
from prior import LatentPrior
from train_pl import VAE, load_model

PIXELS = 28 * 28


def small_model(seed: int = 0) -> VAE:
    """Random weights, large enough for every image to have a posterior of its own."""
    torch.manual_seed(seed)
    model = VAE(num_filters=2, z_dim=3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(0.3 * torch.randn_like(weights))
        for weights in model.prior.parameters():  # mixtures that differ, with finite densities
            weights.mul_(0.3)
    return model


def learned_prior() -> VAE:
    """A model whose posteriors differ, and a prior that was fitted to them for some steps."""
    model, x = small_model(), torch.from_numpy(noise(200)).long().unsqueeze(1)
    with torch.no_grad():
        model.encoder.net[-1].weight.mul_(0.1)
        model.encoder.net[-1].bias[3:] -= 2  # the log std
        mean, log_std = model.encoder(x)
    model.prior = LatentPrior(3, width=64, num_components=4)
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=1e-2)
    labels = torch.arange(len(x)) % 10
    for _ in range(100):
        loss = -model.prior.log_prob(mean + log_std.exp() * torch.randn_like(mean), labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def know_nothing() -> VAE:
    model = small_model()
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    return model


def know_blackness() -> VAE:
    """Certain that every image is black: one more costs the archive half a byte.

    That is for encoding. To take z off under the prior and put it back under the narrower posterior
    leaves more on the stack than there was: without a bound, decoding would never end.
    """
    model = know_nothing()
    with torch.no_grad():
        model.decoder.net[-1].bias[0] = 50
        model.encoder.net[-1].bias[model.decoder.z_dim :] = -1.5  # the log std
    return model


@cache
def test_set() -> np.ndarray:
    fmnist.prepare()
    return fmnist.load(train=False).images.numpy()


def test_images(count: int) -> np.ndarray:
    return test_set()[:count]


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 16, (count, 28, 28), dtype=np.uint8)


def opened(archive: bytes) -> tuple[Header, bytes]:
    return archive_module.read_header(archive), archive[HEADER.size : -CHECKSUM.size]


class RoundTrips:
    """What must come back as it was, whatever the model."""

    def assert_comes_back(self, images: np.ndarray) -> float:
        """Returns the rate in bits per pixel."""
        archive = encode(images, self.model)
        decoded = decode(archive, self.model)
        self.assertEqual((decoded.dtype, decoded.shape), (images.dtype, images.shape))
        self.assertTrue(np.array_equal(decoded, images))
        return 8 * len(archive) / max(1, images.size)

    def test_the_first_500_test_images_come_back(self):
        self.assert_comes_back(test_images(500))

    def test_the_same_images_in_another_order_come_back(self):
        order = np.random.default_rng(0).permutation(100)
        self.assert_comes_back(test_images(100)[order])

    def test_noise_comes_back(self):
        rate = self.assert_comes_back(noise(50))
        print(f"\n{type(self).__name__}: uniform noise at {rate:.2f} bits per pixel", end=" ")
        self.assertGreater(rate, 4)

    def test_black_and_white_images_come_back(self):
        for level in (0, 15):
            self.assert_comes_back(np.full((50, 28, 28), level, np.uint8))

    def test_one_image_and_none_come_back(self):
        for count in (1, 0):
            self.assert_comes_back(test_images(count))
            self.assert_comes_back(test_images(count)[:, 0])


class TestSmallModel(RoundTrips, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = small_model()

    def test_every_number_of_images_comes_back(self):
        for count in range(2, 70, 3):
            self.assert_comes_back(noise(count))


@unittest.skipUnless(PRETRAINED.exists(), f"{PRETRAINED} is not there")
class TestShippedModel(RoundTrips, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = load_model(PRETRAINED)

    def test_the_rate_is_the_negative_elbo(self):
        images = test_images(1000)[:, 0]
        rate = 8 * len(encode(images, self.model)) / images.size
        self.assertAlmostEqual(rate / bench.negative_elbo(self.model, images), 1, delta=0.005)

    def test_the_rate_is_below_that_of_general_codecs_even_for_few_images(self):
        images = test_images(100)[:, 0]
        size = len(encode(images, self.model))
        for name, other in general_codecs.codec_bytes(images).items():
            self.assertLess(size, other, name)


class TestRate(unittest.TestCase):
    def test_a_model_that_knows_nothing_costs_exactly_four_bits_per_pixel_and_the_overhead(self):
        model = know_nothing()
        self.assertEqual(len(encode(noise(0), model)), OVERHEAD)
        for count in (1, 2, 17, 100):
            archive = encode(noise(count), model)
            startup = 4 * opened(archive)[0].startup
            self.assertEqual(len(archive), OVERHEAD + startup + count * PIXELS // 2)
            self.assertLessEqual(startup, 3 * model.decoder.z_dim + 8)  # 24 bits per latent

    def test_the_bits_of_the_latents_come_back(self):
        torch.manual_seed(0)
        model, images = VAE(num_filters=2, z_dim=60).eval(), noise(100)
        with torch.no_grad():
            model.encoder.net[-1].bias[60:] -= 3  # the KL is about 150 nats
        x = torch.from_numpy(images).long().unsqueeze(1)
        with torch.no_grad():
            elbo = np.mean([model(x)[2].item() for _ in range(20)])
        stack = len(opened(encode(images, model))[1])
        self.assertAlmostEqual(8 * stack / images.size / elbo, 1, delta=0.003)

    def test_z_costs_what_the_learned_prior_says_with_its_classes_and_mixtures(self):
        model, images = learned_prior(), noise(200)
        x = torch.from_numpy(images).long().unsqueeze(1)
        with torch.no_grad():
            mean, log_std = model.encoder(x)
            z = mean + log_std.exp() * torch.randn(50, *mean.shape)
            log_pz = model.prior.log_prob(z.flatten(0, 1)).mean().item() / np.log(2)
            log_unit = -0.5 * (z.square() + np.log(2 * np.pi)).sum(2).mean().item() / np.log(2)
        plain = copy.deepcopy(model)
        plain.prior = LatentPrior(model.decoder.z_dim)
        costs = [8 * len(opened(encode(images, m))[1]) / len(images) for m in (model, plain)]
        # The draws of z differ; a bit of y or k that did not come back would be 3 or 6 more.
        self.assertAlmostEqual(costs[1] - costs[0], log_pz - log_unit, delta=0.4)
        self.assertGreater(log_pz - log_unit, 3)
        self.assertTrue(np.array_equal(decode(encode(images, model), model), images))

    def test_no_draw_from_a_posterior_is_further_off_than_its_window(self):
        codec = Codec(small_model())
        with torch.inference_mode():
            posterior = codec._posterior(noise(50))
        words = np.random.default_rng(0).integers(1, 2**32, 5000, dtype=np.uint32)
        z = posterior.pop(codec_module.stream.stack.AnsCoder(words))
        mean = posterior.centre + posterior.mean
        self.assertTrue((np.abs(z - posterior.centre) <= posterior.window).all())
        self.assertTrue((np.abs(z) <= codec_module.RADIUS).all())
        reach = np.minimum(codec_module.RADIUS - np.abs(mean), codec_module.TAILS * posterior.std)
        self.assertTrue((posterior.window + 1 >= np.minimum(reach, codec_module.RADIUS)).all())


class TestBatches(unittest.TestCase):
    def test_none_is_larger_than_what_was_encoded_before_it_and_one(self):
        for count in range(200):
            done = 0
            for size in reversed(list(batches(count))):
                self.assertTrue(1 <= size <= min(codec_module.BATCH, done + 1))
                done += size
            self.assertEqual(done, count)

    def test_full_ones_come_first_for_any_claimed_number_of_images(self):
        sizes = batches(2**32 - 1)
        self.assertEqual([next(sizes) for _ in range(3)], [codec_module.BATCH] * 3)


class TestArithmetic(unittest.TestCase):
    def test_the_number_of_threads_changes_nothing_and_is_left_alone(self):
        before = torch.get_num_threads()
        self.addCleanup(torch.set_num_threads, before)
        archives = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            archives.append(encode(noise(40), small_model()))
            self.assertEqual(torch.get_num_threads(), threads)
            with self.assertRaises(InputError):
                decode(archives[0], small_model(seed=1))
            self.assertEqual(torch.get_num_threads(), threads)
            self.assertTrue(np.array_equal(decode(archives[0], small_model()), noise(40)))
        self.assertEqual(len(set(archives)), 1)

    def test_mode_and_memory_layout_of_the_model_change_nothing_and_are_left_alone(self):
        model = small_model()
        archive = encode(noise(20), model)
        model.train().to(memory_format=torch.contiguous_format)
        weights = copy.deepcopy(model.state_dict())
        self.assertEqual(encode(noise(20), model), archive)
        self.assertTrue(model.training and model.encoder.training)
        for name, tensor in model.state_dict().items():
            self.assertTrue(torch.equal(tensor, weights[name]))
            self.assertTrue(tensor.is_contiguous())

    def test_the_global_random_stream_is_left_alone_and_not_used(self):
        model = small_model()
        archive = encode(noise(20), model)
        torch.manual_seed(99)
        before = torch.get_rng_state()
        self.assertEqual(encode(noise(20), model), archive)
        decode(archive, model)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_a_machine_that_rounds_differently_gets_an_error_and_no_image(self):
        model = small_model()
        archive = encode(noise(20), model)
        with torch.no_grad():
            model.decoder.net[0].weight += 1e-3
        with (
            mock.patch.object(codec_module, "fingerprint", return_value=opened(archive)[0].weights),
            self.assertRaisesRegex(InputError, "do not match.*versions.*processor"),
        ):
            decode(archive, model)

    def test_posteriors_beyond_the_grid_or_below_a_bin_cost_bits_but_no_pixel(self):
        for value in (-60.0, 60.0):
            model = small_model()
            with torch.no_grad():
                model.encoder.net[-1].bias.fill_(value)
            images = noise(40)
            self.assertTrue(np.array_equal(decode(encode(images, model), model), images))


class TestBadImages(unittest.TestCase):
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
                encode(images, small_model())

    def test_models_that_cannot_code_are_refused(self):
        with self.assertRaisesRegex(ValueError, "float32 on the CPU.*float64"):
            encode(noise(1), small_model().double())
        model = small_model()
        with torch.no_grad():
            model.decoder.net[-1].bias.fill_(torch.inf)
        with self.assertRaisesRegex(InputError, "not finite"):
            encode(noise(1), model)

    def test_images_that_cost_less_than_a_byte_each_are_refused_where_decoding_would_refuse_them(
        self,
    ):
        model, images = know_blackness(), np.zeros((1000, 28, 28), np.uint8)
        few = encode(images[:20], model)
        self.assertTrue(np.array_equal(decode(few, model), images[:20]))
        with self.assertRaisesRegex(InputError, "1,000 images take .* at least one byte"):
            encode(images, model)


class TestBadArchives(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = small_model()
        cls.codec = Codec(cls.model)
        cls.archive = encode(test_images(1), cls.model)

    def assert_refused(self, archive: bytes, said: str = "") -> None:
        with self.assertRaisesRegex(InputError, said):
            self.codec.decode(archive)

    def test_any_altered_byte_is_noticed(self):
        for place in range(len(self.archive)):
            for change in (0x01, 0x80, 0xFF):
                altered = bytearray(self.archive)
                altered[place] ^= change
                self.assert_refused(bytes(altered))

    def test_any_truncation_and_any_extension_is_noticed(self):
        for length in range(len(self.archive)):
            self.assert_refused(self.archive[:length])
        for more in (b"\0", b"\0\0\0\0", self.archive):
            self.assert_refused(self.archive + more, "truncated or altered")

    def test_other_files_are_no_archives(self):
        for file in (b"", b"\x93NUMPY", bytes(1000), b"PK\3\4"):
            self.assert_refused(file, "no archive")

    def test_another_version_is_refused_with_both_numbers(self):
        header, stream = opened(self.archive)
        self.assert_refused(seal(header._replace(version=7), stream), "version 7.*version 3")
        for version in (1, 2):
            archive = seal(header._replace(version=version), stream)
            self.assert_refused(archive, f"version {version}.*version 3.*git checkout [0-9a-f]+$")

    def test_another_checkpoint_is_refused_with_both_fingerprints(self):
        other = small_model(seed=1)
        prints = [codec_module.fingerprint(model).hex() for model in (self.model, other)]
        with self.assertRaisesRegex(InputError, f"another checkpoint.*{prints[0]}.*{prints[1]}"):
            decode(self.archive, other)

    def test_false_headers_with_the_right_checksum_are_refused_without_time_or_memory(self):
        header, stream = opened(self.archive)
        for false in (
            {"count": 0},
            {"count": 2},
            {"count": 1000},
            {"count": 2**32 - 1},
            {"startup": 0},
            {"startup": header.startup + 1},
            {"startup": 2**32 - 1},
            {"rank": 0},
            {"rank": 255},
            {"bits": 0},
            {"bits": 8},
            {"bits": 255},
            {"pixels": header.pixels ^ 1},
        ):
            with self.subTest(**false):
                self.assert_refused(seal(header._replace(**false), stream))

    def test_no_archive_has_more_images_than_bytes(self):
        model = know_blackness()
        header, stream = opened(encode(np.zeros((1, 28, 28), np.uint8), model))
        for count in (len(self.archive), 1000, 2**32 - 1):
            archive = seal(header._replace(count=count), stream)
            with self.assertRaisesRegex(InputError, f"claims {count:,} images in {len(archive)}"):
                decode(archive, model)

    def test_false_streams_with_the_right_checksum_are_refused(self):
        header, stream = opened(self.archive)
        for false in (
            *(b"", bytes(4), bytes(400), stream[:-4], stream + bytes(4), stream[4:], stream + b"x"),
            *(stream[:40] + bytes([stream[40] ^ 1]) + stream[41:], stream * 2),
        ):
            self.assert_refused(seal(header, false))
            most = HEADER.size + len(false) + CHECKSUM.size  # more images than bytes never are
            self.assert_refused(seal(header._replace(count=most), false))


def compress_in_little_memory(argv: list[str]) -> None:
    """For a process of its own, which may take 512 MB more than it has after its imports."""
    forked.limit_memory(512 << 20)
    compress.main(argv)


class CommandLine(InFolder):
    """A folder with images and a small model; what the command says and leaves behind."""

    def setUp(self):
        super().setUp()
        self.model = small_model()
        self.checkpoint = self.save_model(self.model, "small.ckpt")
        self.images = noise(20)
        self.input = self.folder / "images.npy"
        np.save(self.input, self.images)
        self.archive = self.folder / "archive.vae"
        self.output = self.folder / "decoded.npy"

    def save_model(self, model: VAE, name: str) -> Path:
        return save_model(model, self.folder / name)

    def run_main(self, *arguments: object, checkpoint: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        arguments = [str(argument) for argument in arguments]
        if arguments[0] != "info":
            arguments += ["--checkpoint", str(checkpoint or self.checkpoint)]
        with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as error:
            try:
                compress.main(arguments)
                code = 0
            except SystemExit as stop:
                code = stop.code
        return code, output.getvalue(), error.getvalue()

    def succeed(self, *arguments: object) -> str:
        code, output, error = self.run_main(*arguments)
        self.assertEqual((code, error), (0, ""))
        return output

    def assert_refused(self, said: str, *arguments: object, **how: Path) -> None:
        before = self.files()
        code, output, error = self.run_main(*arguments, **how)
        self.assertEqual((code, output, len(error.splitlines())), (2, "", 1), error)
        self.assertRegex(error, said)
        self.assertEqual(self.files(), before)

    def files(self) -> dict[str, bytes]:
        paths = self.folder.rglob("*")
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


class TestCommandLine(CommandLine):
    def test_images_go_into_an_archive_and_come_back(self):
        for images in (self.images, self.images[:, None], self.images[:0]):
            np.save(self.input, images)
            said = self.succeed("encode", self.input, self.archive, "--force")
            self.assertIn("verified by decoding it", said)
            self.succeed("decode", self.archive, self.output, "--force")
            decoded = np.load(self.output)
            self.assertEqual(decoded.shape, images.shape)
            self.assertTrue(np.array_equal(decoded, images))
            self.assertEqual(self.archive.read_bytes(), encode(images, self.model))

    def test_the_images_are_not_replaced_by_their_own_archive(self):
        (self.folder / "link.npy").symlink_to(self.input)
        for images in (self.input, self.folder / "link.npy"):
            self.assert_refused("the images themselves", "encode", images, self.input, "--force")

    def test_a_runs_folder_stands_for_its_best_checkpoint(self):
        (self.folder / "run" / "checkpoints").mkdir(parents=True)
        self.save_model(self.model, "run/checkpoints/best_val_bpd_0.5000.ckpt")
        ending = self.run_main("encode", self.input, self.archive, checkpoint=self.folder / "run")
        self.assertEqual((ending[0], ending[2]), (0, ""))
        self.assertEqual(self.archive.read_bytes(), encode(self.images, self.model))

    def test_images_come_back_as_png_files(self):
        self.succeed("encode", self.input, self.archive)
        for _ in range(2):
            self.succeed("decode", self.archive, self.folder / "digits", "--force")
        files = sorted((self.folder / "digits").iterdir())
        self.assertEqual([file.name for file in files], [f"{n:05}.png" for n in range(20)])
        pixels = np.stack([np.array(Image.open(file)) for file in files])
        self.assertTrue(np.array_equal(pixels, self.images * 17))

    def test_info_tells_what_is_in_an_archive_without_the_model(self):
        self.succeed("encode", self.input, self.archive)
        said = self.succeed("info", self.archive)
        for words in (
            "[20, 28, 28]",
            codec_module.fingerprint(self.model).hex(),
            "20 images",
            "bits",
        ):
            self.assertIn(words, said)

    def write_idx(self, shape: tuple[int, ...] = (20, 28, 28)) -> tuple[Path, bytes]:
        raw = fmnist.DATA_DIR / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
        with gzip.open(raw) as file:
            grey = file.read(16 + 20 * PIXELS)[16:]
        path = self.folder / "images-idx3-ubyte"
        path.write_bytes(struct.pack(">4I", 0x803, *shape) + grey)
        return path, path.read_bytes()

    def test_an_idx_file_is_discretized_as_the_training_data_is(self):
        path, content = self.write_idx()
        zipped = self.folder / "images.gz"
        zipped.write_bytes(gzip.compress(content))
        for source in (path, zipped):
            self.succeed("encode", source, self.archive, "--discretize", "--force")
            self.succeed("decode", self.archive, self.output, "--force")
            self.assertTrue(np.array_equal(np.load(self.output), test_images(20)[:, 0]))

    def test_files_that_are_no_images_are_refused_by_name(self):
        path, content = self.write_idx()
        for name, array, said in (
            ("float.npy", self.images / 15, "uint8.*float64"),
            ("shape.npy", self.images[:, 1:], r"\[20, 27, 28\]"),
            ("value.npy", self.images * 2, "0..15.*30"),
        ):
            np.save(self.folder / name, array)
            self.assert_refused(f"{name}.*{said}", "encode", self.folder / name, self.archive)
        np.save(self.folder / "object.npy", np.array([None]), allow_pickle=True)
        whole = self.input.read_bytes()
        huge = whole.replace(b"(20, 28, 28)", b"(2000000000000, 28, 28)").replace(b" " * 11, b"", 1)
        for name, file in (
            ("short.npy", whole[:-1]),
            ("head.npy", whole[:20]),
            ("huge.npy", huge),
            ("text.npy", b"hello"),
            ("empty.npy", b""),
        ):
            (self.folder / name).write_bytes(file)
        names = ("object", "short", "head", "huge", "text", "empty", "missing")
        for name in names:
            file = self.folder / f"{name}.npy"
            self.assert_refused(f"{name}.npy", "encode", file, self.archive)
        self.assert_refused("cannot be used", "encode", self.folder, self.archive)
        self.assert_refused("0..15.*255", "encode", path, self.archive, "--levels", 16)
        self.assert_refused("levels already", "encode", self.input, self.archive, "--discretize")
        both = ("--discretize", "--levels", 16)
        self.assert_refused("not for --levels 16", "encode", path, self.archive, *both)
        damaged = gzip.compress(content)[:-100]
        for file in (content[:-1], content[:10], content + b"x", damaged, damaged[:5]):
            path.write_bytes(file)
            self.assert_refused(path.name, "encode", path, self.archive, "--discretize")
        self.write_idx((10, 56, 28))
        self.assert_refused("56, 28", "encode", path, self.archive, "--discretize")

    def assert_refused_in_little_memory(self, said: str, *arguments: object) -> None:
        before = self.files()
        argv = [*map(str, arguments), "--checkpoint", str(self.checkpoint)]
        code, output, complaints = forked.run(compress_in_little_memory, argv)
        self.assertEqual((code, output), (2, ""), complaints)
        self.assertEqual(len(complaints.splitlines()), 1, complaints)
        self.assertRegex(complaints, said)
        self.assertEqual(self.files(), before)

    def test_a_small_archive_that_claims_billions_of_images_takes_no_memory(self):
        model = know_blackness()
        self.checkpoint = self.save_model(model, "black.ckpt")
        header, stream = opened(encode(np.zeros((1, 28, 28), np.uint8), model))
        self.archive.write_bytes(seal(header._replace(count=2**32 - 1), stream))
        said = "archive.vae: the archive claims 4,294,967,295 images"
        self.assert_refused_in_little_memory(said, "decode", self.archive, self.output)

    def test_a_small_file_that_unpacks_to_gigabytes_takes_no_memory(self):
        bomb, packed = self.folder / "bomb.gz", gzip.compress(bytes(1 << 26))
        for name, header in (
            ("told", struct.pack(">4I", 0x803, (1 << 32) // PIXELS, 28, 28)),
            ("hidden", struct.pack(">4I", 0x803, 1, 28, 28)),
            ("none", b""),
        ):
            bomb.write_bytes(gzip.compress(header) + packed * 64)  # 4 GB
            with self.subTest(name):
                said = "bomb.gz cannot be used: .*(claim|values|not an IDX)"
                how = ("encode", bomb, self.archive, "--discretize")
                self.assert_refused_in_little_memory(said, *how)

    def test_inputs_without_an_end_are_refused(self):
        for command in ("encode", "decode", "info"):
            said = "/dev/zero cannot be.*no regular file"
            outputs = () if command == "info" else (self.output,)
            self.assert_refused(said, command, "/dev/zero", *outputs)

    def test_links_and_devices_are_never_replaced(self):
        self.succeed("encode", self.input, self.archive)
        real, link, dangling = (self.folder / name for name in ("real.vae", "link", "dangling"))
        real.write_bytes(b"precious")
        link.symlink_to(real)
        dangling.symlink_to(self.folder / "nothing")
        device = self.folder / "device"
        os.mkfifo(device)  # a device node needs an administrator
        for target in (link, dangling, device):
            for command in (("encode", self.input), ("decode", self.archive)):
                for force in ((), ("--force",)):
                    self.assert_refused(f"{target.name} is a link or", *command, target, *force)
        self.assertTrue(link.is_symlink() and dangling.is_symlink() and device.is_fifo())

    def test_a_folder_with_anything_else_than_decoded_pictures_is_never_replaced(self):
        self.succeed("encode", self.input, self.archive)
        folder = self.folder / "digits"
        for name in ("sub.png", "00007.png"):
            (folder / name).mkdir(parents=True)
            (folder / name / "precious").write_bytes(b"precious")
            self.assert_refused(name, "decode", self.archive, folder, "--force")
            (folder / name).rename(self.folder / name)
        for name in ("holiday.png", "00007.PNG", "1.png"):
            (folder / name).write_bytes(b"precious")
            self.assert_refused(name, "decode", self.archive, folder, "--force")
            (folder / name).unlink()
        (folder / "00007.png").symlink_to(self.input)
        self.assert_refused("00007.png", "decode", self.archive, folder, "--force")
        (folder / "00007.png").unlink()
        self.succeed("decode", self.archive, folder, "--force")  # empty

    def test_what_appears_in_the_folder_meanwhile_is_kept(self):
        self.succeed("encode", self.input, self.archive)
        folder, whole = self.folder / "digits", Codec.decode
        folder.mkdir()

        def slow_decode(*arguments: object) -> np.ndarray:
            (folder / "notes.txt").write_text("precious")
            return whole(*arguments)

        with mock.patch.object(Codec, "decode", slow_decode):
            code, _, error = self.run_main("decode", self.archive, folder, "--force")
        self.assertEqual((code, len(error.splitlines())), (2, 1), error)
        self.assertEqual([file.name for file in folder.iterdir()], ["notes.txt"])

    def test_an_existing_output_is_kept_unless_forced(self):
        self.archive.write_bytes(b"precious")
        self.assert_refused("archive.vae exists.*--force", "encode", self.input, self.archive)
        self.succeed("encode", self.input, self.archive, "--force")
        self.output.write_bytes(b"precious")
        self.assert_refused("decoded.npy exists.*--force", "decode", self.archive, self.output)
        folder = self.folder / "digits"
        self.succeed("decode", self.archive, folder)
        self.assert_refused("digits exists.*--force", "decode", self.archive, folder)
        (folder / "notes.txt").write_text("precious")
        self.assert_refused("other files", "decode", self.archive, folder, "--force")
        self.assert_refused("is a folder|cannot be", "encode", self.input, folder, "--force")

    def test_an_output_that_cannot_be_written_is_refused_by_name(self):
        nowhere = self.folder / "nowhere" / "archive.vae"
        self.assert_refused("nowhere/archive.vae.*No such", "encode", self.input, nowhere)
        nowhere = self.input / "archive.vae"
        self.assert_refused("images.npy/archive.vae", "encode", self.input, nowhere)

    def test_a_folder_of_pictures_is_never_replaced_by_a_file(self):
        (self.folder / "digits").mkdir()
        (self.folder / "digits" / "1.png").write_bytes(b"precious")
        self.assert_refused("digits", "encode", self.input, self.folder / "digits", "--force")

    def test_bad_archives_are_refused_with_nothing_written(self):
        self.succeed("encode", self.input, self.archive)
        whole = self.archive.read_bytes()
        other = self.save_model(small_model(seed=1), "other.ckpt")
        decoding = ("decode", self.archive, self.output)
        self.assert_refused("archive.vae: .*another checkpoint", *decoding, checkpoint=other)
        self.assert_refused("nothing.ckpt", *decoding, checkpoint=self.folder / "nothing.ckpt")
        header, stream = opened(whole)
        for archive, said in (
            (whole[:-1], "truncated or altered"),
            (b"", "no archive"),
            (seal(header._replace(pixels=1), stream), "do not match"),
            (seal(header._replace(version=9), stream), "version 9"),
        ):
            self.archive.write_bytes(archive)
            self.assert_refused(f"archive.vae: .*{said}", *decoding)
            self.assert_refused(said, "decode", self.archive, self.folder / "digits")
        self.archive.unlink()
        self.assert_refused("archive.vae.*No such file", *decoding)
        self.assert_refused("archive.vae.*No such file", "info", self.archive)

    def test_what_does_not_decode_to_the_images_is_not_written(self):
        for wrong in ({"return_value": self.images[::-1]}, {"side_effect": InputError("no")}):
            with mock.patch.object(Codec, "decode", **wrong):
                code, _, error = self.run_main("encode", self.input, self.archive)
                self.assertEqual(code, 1)
                self.assertIn("does not decode", error)
                self.assertFalse(self.archive.exists())

    def test_no_verify_saves_the_decoding(self):
        with mock.patch.object(Codec, "decode", side_effect=AssertionError):
            said = self.succeed("encode", self.input, self.archive, "--no-verify")
        self.assertIn("not verified", said)

    def test_bench_takes_the_images_that_the_model_was_trained_on(self):
        parts = torch.load(self.checkpoint, weights_only=True)
        data = {"datamodule_hyper_parameters": {"dataset": "FashionMNIST"}}
        torch.save({**parts, **data}, self.checkpoint)
        with mock.patch.object(fmnist, "prepare", side_effect=InputError("stop")) as prepare:
            self.assert_refused("stop", "bench", "--limit", 7)
        prepare.assert_called_once_with(dataset="FashionMNIST")

    def test_bench_prints_the_table_the_speeds_and_what_was_left_out(self):
        with mock.patch.dict(sys.modules, {"imagecodecs": None}):
            code, said, _ = self.run_main("bench", "--limit", 7)
        self.assertEqual(code, 0)
        table = [line for line in said.splitlines() if line.startswith("|")]
        self.assertEqual(len(table), 2 * (2 + 5 + 2 + 3))  # two kinds, together and single
        for words in (
            *("7 images of 16 grey", "7 images of 256 grey", "this model, an archive of one image"),
            *("PNG, one sheet", "WebP, one sheet", "bz2", "xz", "each in a file of its own"),
            *("JPEG XL is left out", "negative ELBO", "bits to start up", "images/s", "weights"),
            *("smaller than xz from", "in 3 random orders", "7 test images of MNIST"),
        ):
            self.assertIn(words, said)
        for limit in (0, 10_001, "all"):
            self.assert_refused(f"--limit.*{limit}", "bench", "--limit", limit)


class TestBench(unittest.TestCase):
    def test_the_break_even_number_is_the_first_at_which_archive_and_weights_are_smaller(self):
        said = bench.break_even(1000, 10, 50, {"a": 70, "b": 50, "c": 40})
        self.assertIn("smaller than a from 501 images", said[0])  # 5 bytes each, not 7
        for line in said[1:]:
            self.assertIn("no number of images", line)

    def test_a_codec_that_loses_a_pixel_is_no_result(self):
        images = noise(2)
        with redirect_stderr(StringIO()):
            kept = general_codecs.Format(np.ndarray.tobytes, lambda file: file_to_image(file))
            result = bench.measure("kept", general_codecs.Contest(kept, images))
            self.assertEqual(result.size, images.size)
            lost = general_codecs.Format(kept.encode, lambda file: file_to_image(file) ^ 1)
            with self.assertRaisesRegex(bench.VerificationError, "lost.*do not come back"):
                bench.measure("lost", general_codecs.Contest(lost, images))


def file_to_image(file: bytes) -> np.ndarray:
    return np.frombuffer(file, np.uint8).reshape(28, 28)


class TestGeneralCodecs(unittest.TestCase):
    def contests(self, images: np.ndarray, levels: int) -> dict[str, general_codecs.Contest]:
        together = general_codecs.codecs(images, levels)
        contests = together | general_codecs.single_image_codecs(images)
        return contests

    def test_every_codec_gives_back_what_it_got(self):
        for levels in (16, 256):
            images = np.random.default_rng(0).integers(0, levels, (7, 28, 28), dtype=np.uint8)
            for name, (form, arrays) in self.contests(images, levels).items():
                with self.subTest(name, levels=levels):
                    for array in arrays:
                        self.assertTrue(np.array_equal(form.decode(form.encode(array)), array))
                    self.assertGreaterEqual(sum(array.size for array in arrays), images.size)

    def test_a_sheet_shows_every_image(self):
        images = noise(7)
        sheet = general_codecs.one_sheet(images)
        self.assertEqual(sheet.shape, (3 * 28, 3 * 28))
        for n, image in enumerate(images):
            row, column = n // 3 * 28, n % 3 * 28
            self.assertTrue(np.array_equal(sheet[row : row + 28, column : column + 28], image))

    def test_noise_costs_its_bits_with_every_codec(self):
        for levels, bits in ((16, 4), (256, 8)):
            images = np.random.default_rng(0).integers(0, levels, (30, 28, 28), dtype=np.uint8)
            with mock.patch.dict(sys.modules, {"imagecodecs": None}):
                sizes, fewer = (
                    {
                        name: sum(len(contest.format.encode(array)) for array in contest.arrays)
                        for name, contest in self.contests(part, levels).items()
                    }
                    for part in (images, images[:10])
                )
            for name, size in sizes.items():
                self.assertGreater(size, 30 * PIXELS * bits / 8, name)
                self.assertLess(size, 30 * (PIXELS * bits / 8 * 1.2 + 100), name)
                self.assertGreater(size, 2 * fewer[name], name)


if __name__ == "__main__":
    unittest.main()
