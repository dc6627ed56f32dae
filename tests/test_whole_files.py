"""What people have on disk: images of 256 grey levels, IDX files and pictures, there and back."""

import random
import struct
import subprocess
import unittest
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from test_compress import CommandLine, noise, opened, small_model

import fmnist
from boundary.command_line import InputError
from boundary.files import read_idx
from compress import decode, encode
from compression import archive as archive_module
from compression import codec as codec_module
from compression import low_bits, low_bits_code, low_bits_training
from compression.archive import seal
from compression.codec import Codec
from compression.low_bits import LowBits


@cache
def grey_digits() -> np.ndarray:
    fmnist.prepare()
    return read_idx(fmnist.DATA_DIR / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz")[:100].copy()


def grey_noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def small_low_bits(seed: int = 0) -> LowBits:
    """Random weights, large enough for every input to matter."""
    torch.manual_seed(seed)
    model = LowBits(width=12, heads=2, key_dim=3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(0.15 * torch.randn_like(weights))
    return model


class TestWholePixels(unittest.TestCase):
    """Archives of 256 grey levels; those of 16 are in test_compress.py."""

    @classmethod
    def setUpClass(cls):
        cls.codec = Codec(small_model(), small_low_bits())
        cls.archive = cls.codec.encode(grey_digits()[:1])

    def assert_comes_back(self, images: np.ndarray) -> None:
        decoded = self.codec.decode(self.codec.encode(images))
        self.assertEqual((decoded.dtype, decoded.shape), (images.dtype, images.shape))
        self.assertTrue(np.array_equal(decoded, images))

    def assert_refused(self, archive: bytes, said: str = "") -> None:
        with self.assertRaisesRegex(InputError, said):
            self.codec.decode(archive)

    def test_digits_noise_black_white_one_and_none_come_back(self):
        for images in (grey_digits()[:20], grey_noise(3), grey_noise(1)[:, None], grey_noise(0)):
            self.assert_comes_back(images)
        for value in (0, 7, 8, 255):
            self.assert_comes_back(np.full((2, 28, 28), value, np.uint8))

    def test_values_that_are_plainly_black_and_yet_not_zero_come_back(self):
        images = np.zeros((2, 28, 28), np.uint8)
        images[0, 3, 3], images[1, 20, 20] = 7, 1
        self.assert_comes_back(images)

    def test_more_images_than_a_batch_come_back(self):
        for small in ({"IMAGES": 4}, {"PIXELS": 700}):
            with mock.patch.multiple(low_bits_code, **small):
                for count in (3, 4, 5, 9):
                    self.assert_comes_back(grey_digits()[:count])

    def test_every_image_is_in_one_batch_which_takes_little_memory(self):
        blank, white = np.zeros((2000, 28, 28), np.uint8), np.full((100, 28, 28), 15, np.uint8)
        images = np.concatenate([white, blank, fmnist.four_bit(grey_digits())])
        parts = low_bits_code.parts(images)
        self.assertEqual(sorted(np.concatenate(parts)), list(range(len(images))))
        for part in parts:
            self.assertLessEqual(len(part), low_bits_code.IMAGES)
            pixels = low_bits.near_ink(torch.from_numpy(images[part])).sum()
            self.assertLess(pixels, low_bits_code.PIXELS + 784)

    def test_the_low_part_costs_what_its_model_says(self):
        model, images = small_low_bits(), grey_digits()[:20]
        stack = codec_module.stream.stack.AnsCoder()
        with torch.inference_mode():
            low_bits_code.push(stack, model, torch.from_numpy(images.astype(np.int64)))
        bits = low_bits.bits_per_pixel(model, torch.from_numpy(images)) * images.size
        self.assertAlmostEqual(stack.num_bits() / bits, 1, delta=0.003)

    def test_the_shipped_model_takes_the_digits_below_half_a_bit_per_pixel(self):
        model, images = low_bits.load(), grey_digits()
        bits = low_bits.bits_per_pixel(model, torch.from_numpy(images))
        self.assertLess(bits, 0.5)

    def test_they_start_up_with_the_bits_of_the_low_part(self):
        few = opened(self.archive)[0].startup
        self.assertLess(few, opened(encode(noise(1), small_model()))[0].startup)

    def test_any_altered_byte_is_noticed(self):
        for place in range(len(self.archive)):
            for change in (0x01, 0xFF):
                altered = bytearray(self.archive)
                altered[place] ^= change
                self.assert_refused(bytes(altered))

    def test_another_checkpoint_or_model_of_the_low_bits_is_refused(self):
        for codec in (
            Codec(small_model(seed=1), small_low_bits()),
            Codec(small_model(), small_low_bits(seed=1)),
            Codec(small_model()),
        ):
            with self.assertRaises(InputError):
                codec.decode(self.archive)

    def test_a_machine_that_rounds_differently_gets_an_error_and_no_image(self):
        other = Codec(small_model(), small_low_bits())
        with torch.no_grad():
            other.low_bits.embed.weight += 1e-3
        with self.assertRaisesRegex(InputError, "do not match"):
            other.decode(self.codec.encode(grey_digits()[:5]))

    def test_false_headers_and_streams_with_the_right_checksum_are_refused(self):
        header, words = opened(self.archive)
        for false in (
            *({"count": 0}, {"count": 2}, {"count": len(self.archive)}, {"bits": 4}),
            *({"startup": 0}, {"startup": header.startup + 1}, {"pixels": header.pixels ^ 1}),
        ):
            with self.subTest(**false):
                self.assert_refused(seal(header._replace(**false), words))
        for false in (b"", bytes(400), words[:-4], words[4:], words * 2):
            self.assert_refused(seal(header, false))

    def test_fuzzed_archives_of_both_kinds_with_right_checksums_end_with_one_line(self):
        chance = random.Random(0)
        plain = Codec(small_model())
        for codec in (self.codec, plain):
            header, words = opened(codec.encode(grey_digits()[:2] >> (8 - codec.bits)))
            for _ in range(15):
                altered = bytearray(words)
                for _ in range(chance.randint(1, 4)):
                    altered[chance.randrange(len(altered))] = chance.randrange(256)
                false = header._replace(count=chance.choice([1, 2, 3]))
                with self.assertRaises(InputError) as caught:
                    codec.decode(seal(false, bytes(altered)))
                self.assertNotIn("\n", str(caught.exception))

    def test_a_wrong_number_of_levels_is_refused(self):
        with self.assertRaisesRegex(ValueError, "16 or 256.*8"):
            encode(noise(1), small_model(), levels=8)
        with self.assertRaisesRegex(ValueError, "0..15"):
            encode(grey_noise(1), small_model())

    def test_the_shipped_model_of_the_low_bits_is_what_encode_and_decode_take(self):
        archive = encode(grey_digits()[:3], small_model(), levels=256)
        self.assertTrue(np.array_equal(decode(archive, small_model()), grey_digits()[:3]))
        weights = codec_module.fingerprint(small_model(), low_bits.load())
        self.assertEqual(archive_module.read_header(archive).weights, weights)

    def test_a_model_of_the_low_bits_that_is_missing_or_damaged_is_refused_by_name(self):
        with self.assertRaisesRegex(InputError, "nothing.pt cannot be used.*repository"):
            low_bits.load(Path("nothing.pt"))


class TestFiles(CommandLine):
    """Round trips on the command line, as files."""

    def setUp(self):
        super().setUp()
        self.idx = self.folder / "t10k-images-idx3-ubyte"
        self.grey = grey_digits()[:4]
        self.idx.write_bytes(struct.pack(">4I", 0x803, 4, 28, 28) + self.grey.tobytes())

    def there_and_back(self, source: Path, name: str, *options: object) -> Path:
        target = self.folder / name
        self.succeed("encode", source, self.archive, "--force", *options)
        self.succeed("decode", self.archive, target, "--force")
        return target

    def test_an_idx_file_comes_back_byte_for_byte(self):
        subprocess.run(["gzip", "--keep", str(self.idx)], check=True)
        for source in (self.idx, self.folder / f"{self.idx.name}.gz"):
            for name in ("back-ubyte", "back.idx"):
                back = self.there_and_back(source, name)
                self.assertEqual(back.read_bytes(), self.idx.read_bytes())
        self.assertIn("0..255", self.succeed("info", self.archive))

    def test_an_idx_file_comes_back_as_an_array_and_an_array_as_an_idx_file(self):
        array = self.there_and_back(self.idx, "back.npy")
        self.assertTrue(np.array_equal(np.load(array), self.grey))
        again = self.there_and_back(array, "back-ubyte", "--levels", 256)
        self.assertEqual(again.read_bytes(), self.idx.read_bytes())

    def test_an_array_of_256_levels_is_never_guessed(self):
        array = self.there_and_back(self.idx, "back.npy")
        self.assert_refused("0..15", "encode", array, self.folder / "other.vae")
        dark = self.folder / "dark.npy"
        np.save(dark, self.grey // 17)
        for levels in (16, 256):
            self.there_and_back(dark, "again.npy", "--levels", levels)
            self.assertIn(f"0..{levels - 1}", self.succeed("info", self.archive))
        discretized = self.there_and_back(array, "16.npy", "--levels", 256, "--discretize")
        self.assertTrue(np.array_equal(np.load(discretized), fmnist.four_bit(self.grey)))
        self.assert_refused("--levels.*17", "encode", array, self.archive, "--levels", 17)

    def test_decoded_folders_of_both_kinds_come_back(self):
        pictures = self.there_and_back(self.idx, "digits")
        again = self.there_and_back(pictures, "back-ubyte")
        self.assertEqual(again.read_bytes(), self.idx.read_bytes())
        pictures = self.there_and_back(self.input, "levels")
        again = self.there_and_back(pictures, "levels.npy", "--levels", 16)
        self.assertTrue(np.array_equal(np.load(again), self.images))
        self.assert_refused(
            "17 times", "encode", self.folder / "digits", self.folder / "x.vae", "--levels", 16
        )

    def test_one_picture_comes_back_as_one_picture(self):
        Image.fromarray(self.grey[0]).save(self.folder / "seven.png")
        back = self.there_and_back(self.folder / "seven.png", "back.png")
        self.assertTrue(np.array_equal(np.array(Image.open(back)), self.grey[0]))
        self.succeed("encode", self.idx, self.archive, "--force")
        self.assert_refused("has 4.*folder", "decode", self.archive, self.folder / "four.png")
        self.assert_refused("without .gz", "decode", self.archive, self.folder / "back-ubyte.gz")

    def test_pictures_of_every_grey_format_come_back_in_the_order_of_their_names(self):
        folder = self.folder / "mixed"
        folder.mkdir()
        expected = []
        for name, bits, (mode, save) in zip("dcba", (1, 2, 4, 8), GREY_FORMATS, strict=True):
            picture = grey_noise(1)[0] >> (8 - bits)
            save(folder / f"{name}.png", picture)
            with Image.open(folder / f"{name}.png") as file:
                self.assertEqual(file.mode, mode)
            expected.insert(0, picture * np.uint8(255 // (2**bits - 1)))
        back = self.there_and_back(folder, "back.npy")
        self.assertTrue(np.array_equal(np.load(back), expected))

    def test_pictures_that_are_something_else_are_refused_by_name(self):
        folder = self.folder / "digits"
        folder.mkdir()
        self.assert_refused("empty", "encode", folder, self.archive)
        colours = np.stack([grey_noise(1)[0], grey_noise(2)[1], grey_noise(3)[2]], axis=2)
        grey = Image.fromarray(self.grey[0])
        for picture, how, said in (
            (Image.fromarray(colours), {}, "colours"),
            (Image.fromarray(colours).convert("P"), {}, "colours"),
            (grey.convert("LA"), {}, "transparency"),
            (grey, {"transparency": 0}, "transparency"),
            (Image.fromarray(self.grey[0].astype(np.uint16) * 257), {}, "16 bits"),
            (grey.resize((29, 28)), {}, "29x28"),
            (Image.new("L", (30_000, 30_000)).resize((9_000, 1)), {}, "9000x1"),
            (grey, {"save_all": True, "append_images": [grey.transpose(0)]}, "animated"),
        ):
            with self.subTest(said):
                picture.save(folder / "5.png", **how)
                self.assert_refused(f"digits.*5.png.*{said}", "encode", folder, self.archive)
        grey.save(folder / "5.png")
        whole = (folder / "5.png").read_bytes()
        for damaged in (whole[:-30], whole[:40], b"", b"hello"):
            (folder / "6.png").write_bytes(damaged)
            self.assert_refused("6.png", "encode", folder, self.archive)
        (folder / "6.png").unlink()
        (folder / "notes.txt").write_text("hello")
        self.assert_refused("notes.txt", "encode", folder, self.archive)
        (folder / "notes.txt").unlink()
        (folder / "more").mkdir()
        self.assert_refused("more", "encode", folder, self.archive)


def save_as(**how: object) -> Callable[[Path, np.ndarray], None]:
    """Saves levels as a palette of greys with so many bits."""

    def save(path: Path, levels: np.ndarray) -> None:
        picture = Image.frombytes("P", (28, 28), levels.tobytes())
        step = 255 // (2 ** how["bits"] - 1)
        picture.putpalette([step * level for level in range(2 ** how["bits"]) for _ in "RGB"])
        picture.save(path, **how)

    return save


def save_bits(path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels.astype(bool)).save(path)


def save_grey(path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(path)


GREY_FORMATS = (
    ("1", save_bits),
    ("P", save_as(bits=2)),
    ("P", save_as(bits=4)),
    ("L", save_grey),
)


class TestTrainingCommand(unittest.TestCase):
    def test_numbers_out_of_range_are_refused_in_one_line(self):
        for option, value in (("--steps", "0"), ("--seed", "-1"), ("--steps", "many")):
            with self.subTest(option):
                with redirect_stderr(StringIO()) as said, self.assertRaises(SystemExit) as stop:
                    low_bits_training.main([option, value])
                self.assertEqual(stop.exception.code, 2)
                self.assertRegex(said.getvalue(), f"^[^\n]*{option}[^\n]*\n$")


if __name__ == "__main__":
    unittest.main()
