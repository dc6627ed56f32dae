"""compress.py on the command line: files there and back, and what is refused in one line."""

import gzip
import shutil
import struct
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from test_compression import dark, digits, noise, small_model
from tiny import InFolder, run_command, save_model

import compress
import fmnist
from compress import encode
from compression.archive import Archive, read_archive, write_archive
from compression.codec import Codec
from compression.whole_model import whole_model
from inputs.command_line import InputError
from vae import PRETRAINED, load_model


class CommandLine(InFolder):
    """A folder with images and a small model; what the command says and leaves behind."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(compress, "load_model", cache(load_model)))
        self.model = small_model(width=512)  # that of every checkpoint
        self.checkpoint = save_model(self.model, self.folder / "small.ckpt")
        self.images = dark(20)
        self.input = self.folder / "images.npy"
        np.save(self.input, self.images)
        self.grey = digits()[:4]
        self.idx = self.folder / "t10k-images-idx3-ubyte"
        self.idx.write_bytes(struct.pack(">4I", 0x803, 4, 28, 28) + self.grey.tobytes())
        self.archive = self.folder / "archive.vae"
        self.output = self.folder / "decoded.npy"

    def run_main(self, *arguments: object, checkpoint: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        model = () if arguments[0] == "info" else ("--checkpoint", checkpoint or self.checkpoint)
        return run_command(compress.main, *arguments, *model)

    def succeed(self, *arguments: object) -> str:
        code, output, error = self.run_main(*arguments)
        self.assertEqual((code, error), (0, ""))
        return output

    def assert_refused(
        self, said: str, *arguments: object, checkpoint: Path | None = None, code: int = 2
    ) -> None:
        before = self.files()
        ended, output, error = self.run_main(*arguments, checkpoint=checkpoint)
        self.assertEqual((ended, output, len(error.splitlines())), (code, "", 1), error)
        self.assertRegex(error, said)
        self.assertEqual(self.files(), before)

    def files(self) -> dict[str, bytes]:
        paths = self.folder.rglob("*")
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    def there_and_back(self, source: Path, name: str, *options: object) -> Path:
        target = self.folder / name
        self.succeed("encode", source, self.archive, "--force", *options)
        self.succeed("decode", self.archive, target, "--force")
        return target


class TestFiles(CommandLine):
    """Round trips as files."""

    def test_an_array_comes_back_in_its_shape(self):
        for images in (self.images, self.images[:, None], self.images[:0]):
            np.save(self.input, images)
            said = self.succeed("encode", self.input, self.archive, "--force")
            self.assertIn("verified by decoding it", said)
            self.succeed("decode", self.archive, self.output, "--force")
            self.assertEqual(np.load(self.output).shape, images.shape)
            self.assertTrue(np.array_equal(np.load(self.output), images))
            encoded = read_archive(self.archive.read_bytes()).content
            self.assertEqual(encoded, read_archive(encode(images, self.model)).content)

    def test_an_idx_file_comes_back_byte_for_byte_or_as_an_array(self):
        zipped = self.folder / f"{self.idx.name}.gz"
        zipped.write_bytes(gzip.compress(self.idx.read_bytes()))
        array = self.there_and_back(zipped, "new/back.npy")
        self.assertTrue(np.array_equal(np.load(array), self.grey))
        for source, name in ((self.idx, "back-ubyte"), (zipped, "back.idx"), (array, "x-ubyte")):
            back = self.there_and_back(source, name, "--levels", 256)
            self.assertEqual(back.read_bytes(), self.idx.read_bytes())

    def test_the_number_of_levels_is_never_guessed(self):
        array = self.there_and_back(self.idx, "back.npy")
        self.assert_refused("0..15", "encode", array, self.folder / "other.vae")
        np.save(self.folder / "dark.npy", self.grey // 17)
        for levels in (16, 256):
            self.there_and_back(self.folder / "dark.npy", "again.npy", "--levels", levels)
            self.assertIn(f"0..{levels - 1}", self.succeed("info", self.archive))
        for options in (("--levels", 256, "--discretize"), ("--discretize",)):
            source = self.idx if len(options) == 1 else array
            discretized = self.there_and_back(source, "16.npy", *options)
            self.assertTrue(np.array_equal(np.load(discretized), fmnist.four_bit(self.grey)))

    def test_a_folder_of_pictures_comes_back_under_its_names(self):
        folder = self.folder / "digits"
        (folder / "7").mkdir(parents=True)
        for name, picture in zip(("b.png", "a ü.PNG", "7/1.png", "7/b"), self.grey, strict=True):
            Image.fromarray(picture).save(folder / name, format="PNG")
        back = self.there_and_back(folder, "back")
        self.assertEqual(pictures_in(back), pictures_in(folder))
        array = np.load(self.there_and_back(folder, "x.npy"))
        self.assertTrue(np.array_equal(array[-1], self.grey[0]))  # of the last name

    def test_pictures_without_names_are_numbered_and_their_numbers_cost_nothing(self):
        sizes = []
        for source, name in ((self.idx, "digits"), (self.folder / "digits", "again-ubyte")):
            back = self.there_and_back(source, name)
            sizes.append(self.archive.stat().st_size)
        self.assertEqual(sizes[0], sizes[1])
        self.assertEqual(back.read_bytes(), self.idx.read_bytes())
        names = sorted(file.name for file in (self.folder / "digits").iterdir())
        self.assertEqual(names, [f"{number:05}.png" for number in range(4)])

    def test_pictures_of_16_levels_show_17_times_the_level(self):
        pictures = self.there_and_back(self.input, "levels")
        first = np.array(Image.open(pictures / "00000.png"))
        self.assertTrue(np.array_equal(first, self.images[0] * 17))
        again = self.there_and_back(pictures, "levels.npy", "--levels", 16)
        self.assertTrue(np.array_equal(np.load(again), self.images))
        Image.fromarray(self.grey[0]).save(pictures / "00001.png")
        self.assert_refused("17 times", "encode", pictures, self.folder / "x.vae", "--levels", 16)

    def test_one_picture_comes_back_as_one_picture(self):
        Image.fromarray(self.grey[0]).save(self.folder / "seven.png")
        back = self.there_and_back(self.folder / "seven.png", "back.png")
        self.assertTrue(np.array_equal(np.array(Image.open(back)), self.grey[0]))
        self.succeed("encode", self.idx, self.archive, "--force")
        self.assert_refused("has 4.*folder", "decode", self.archive, self.folder / "four.png")
        self.assert_refused("without .gz", "decode", self.archive, self.folder / "back-ubyte.gz")

    def test_info_tells_what_is_in_an_archive_without_the_model(self):
        self.succeed("encode", self.input, self.archive)
        said = self.succeed("info", self.archive)
        for words in ("[20, 28, 28]", whole_model(self.model).digest.hex(), "start up"):
            self.assertIn(words, said)
        np.save(self.input, noise(3))
        self.succeed("encode", self.input, self.archive, "--force")
        self.assertIn("as they are", self.succeed("info", self.archive))

    def test_an_archive_of_a_run_names_the_checkpoint_to_keep(self):
        folder = self.folder / "logs" / "version_0" / "checkpoints"
        folder.mkdir(parents=True)
        self.checkpoint.rename(folder / "best_val_bpd_3.0000.ckpt")
        self.checkpoint = folder.parent
        said = self.succeed("encode", self.input, self.archive)
        self.assertIn(f"keep {folder / 'best_val_bpd_3.0000.ckpt'}", said)
        wanted = "logs/version_0/checkpoints/best_val_bpd_3.0000.ckpt"
        self.assertIn(wanted, self.succeed("info", self.archive))
        decoding = ("decode", self.archive, self.output)
        self.assert_refused(f"another model, {wanted}", *decoding, checkpoint=PRETRAINED)

    def test_an_archive_with_its_model_outlives_the_checkpoint(self):
        said = self.succeed("encode", self.input, self.archive, "--with_model")
        self.assertIn("contains its model", said)
        self.assertIn("in the archive", self.succeed("info", self.archive))
        self.checkpoint.unlink()
        self.succeed("decode", self.archive, self.output)
        self.assertTrue(np.array_equal(np.load(self.output), self.images))

    def test_another_model_hears_of_the_shipped_one(self):
        self.archive.write_bytes(encode(self.images, load_model(PRETRAINED)))
        self.assert_refused("the shipped model", "decode", self.archive, self.output)

    def test_images_of_two_levels_come_back_and_others_are_refused(self):
        self.model = small_model(num_levels=2, width=512)
        save_model(self.model, self.checkpoint)
        np.save(self.input, noise(3, 2))
        back = self.there_and_back(self.input, "back")
        again = self.there_and_back(back, "again.npy", "--levels", 2)
        self.assertTrue(np.array_equal(np.load(again), noise(3, 2)))
        other = self.folder / "other.vae"
        self.assert_refused("with 2 grey levels, got 256", "encode", self.idx, other)
        decoding = ("decode", self.archive, self.folder / "x.npy")
        self.assert_refused("another model, small.ckpt", *decoding, checkpoint=PRETRAINED)


def pictures_in(folder: Path) -> dict[str, list]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): np.array(Image.open(file)).tolist() for file in files}


class TestRefusals(CommandLine):
    def test_files_that_are_no_images_are_refused_by_name(self):
        for name, array, said in (
            ("float.npy", self.images / 15, "uint8.*float64"),
            ("shape.npy", self.images[:, 1:], r"\[20, 27, 28\]"),
            ("value.npy", self.images * 3, "0..15.*21"),
        ):
            np.save(self.folder / name, array)
            self.assert_refused(f"{name}.*{said}", "encode", self.folder / name, self.archive)
        whole, content = self.input.read_bytes(), self.idx.read_bytes()
        zipped = gzip.compress(content)[:-100]
        for name, file in (("short.npy", whole[:-1]), ("empty", b""), ("damaged.gz", zipped)):
            (self.folder / name).write_bytes(file)
            self.assert_refused(name, "encode", self.folder / name, self.archive)
        self.assert_refused("missing.npy", "encode", self.folder / "missing.npy", self.archive)

    def test_options_that_do_not_fit_the_file_are_refused(self):
        self.assert_refused("0..15.*255", "encode", self.idx, self.archive, "--levels", 16)
        self.assert_refused("levels already", "encode", self.input, self.archive, "--discretize")
        self.assert_refused("--levels.*17", "encode", self.input, self.archive, "--levels", 17)

    def test_pictures_that_are_something_else_are_refused_by_name(self):
        folder = self.folder / "digits"
        folder.mkdir()
        self.assert_refused("empty", "encode", folder, self.archive)
        grey, colours = Image.fromarray(self.grey[0]), np.stack([*noise(3, 256)], axis=2)
        for picture, options, said in (
            (Image.fromarray(colours), {}, "colours"),
            (grey, {"transparency": 0}, "transparency"),
            (Image.fromarray(self.grey[0].astype(np.uint16) * 257), {}, "16 bits"),
            (grey, {"save_all": True, "append_images": [grey.rotate(90)]}, "2 frames"),
            (grey.resize((29, 28)), {}, "29x28"),
        ):
            with self.subTest(said):
                picture.save(folder / "5.png", **options)
                self.assert_refused(f"digits.*5.png.*{said}", "encode", folder, self.archive)
        grey.save(folder / "5.png")
        (folder / "6.png").write_bytes((folder / "5.png").read_bytes()[:-30])
        self.assert_refused("6.png", "encode", folder, self.archive)
        (folder / "6.png").rename(folder / "notes.txt")
        self.assert_refused("notes.txt", "encode", folder, self.archive)

    def test_links_are_followed_and_hidden_files_counted(self):
        folder, elsewhere = self.folder / "digits", self.folder / "elsewhere"
        for place, picture in zip((folder, elsewhere), self.grey, strict=False):
            place.mkdir()
            Image.fromarray(picture).save(place / "1.png")
        (folder / "linked").symlink_to(elsewhere)
        shutil.copy(folder / "1.png", folder / ".2.png")
        said = self.succeed("encode", folder, self.archive)
        self.assertIn("2 images", said)
        self.assertIn("not in the archive: 1\n", said)
        (folder / "gone.png").symlink_to(self.folder / "nowhere")
        self.assert_refused("gone.png", "encode", folder, self.folder / "other.vae")

    def test_an_existing_output_is_kept_unless_forced(self):
        self.archive.write_bytes(b"precious")
        self.assert_refused("archive.vae exists.*--force", "encode", self.input, self.archive)
        self.assert_refused("the images themselves", "encode", self.input, self.input, "--force")
        nowhere = self.input / "archive.vae"
        self.assert_refused("images.npy.*cannot be written", "encode", self.input, nowhere)
        self.succeed("encode", self.input, self.archive, "--force")
        self.output.write_bytes(b"precious")
        self.assert_refused("decoded.npy exists.*--force", "decode", self.archive, self.output)

    def test_a_folder_is_never_replaced(self):
        self.succeed("encode", self.input, self.archive)
        folder = self.folder / "digits"
        folder.mkdir()
        for _ in range(2):
            for command in (("encode", self.input), ("decode", self.archive)):
                self.assert_refused("digits is a folder", *command, folder, "--force")
            (folder / "notes.txt").write_text("precious")

    def test_bad_archives_are_refused_with_nothing_written(self):
        self.succeed("encode", self.input, self.archive)
        whole = self.archive.read_bytes()
        other = save_model(small_model(seed=1, width=512), self.folder / "other.ckpt")
        decoding = ("decode", self.archive, self.output)
        self.assert_refused("another model, small.ckpt", *decoding, checkpoint=other)
        self.assert_refused("nothing.ckpt", *decoding, checkpoint=self.folder / "nothing.ckpt")
        header, content, *_ = read_archive(whole)
        for archive, said in (
            (whole[:-1], "truncated or altered"),
            (b"", "no archive"),
            (write_archive(Archive(header._replace(pixels=1), content)), "do not match"),
        ):
            self.archive.write_bytes(archive)
            self.assert_refused(said, *decoding)
            self.assert_refused(said, "decode", self.archive, self.folder / "digits")
        self.archive.unlink()
        for command in (decoding, ("info", self.archive)):
            self.assert_refused("archive.vae.*No such file", *command)

    def test_what_does_not_decode_to_the_images_is_not_written_unless_that_is_not_asked(self):
        for wrong in ({"return_value": self.images[::-1]}, {"side_effect": InputError("no")}):
            with mock.patch.object(Codec, "decode", **wrong):
                self.assert_refused("not decode", "encode", self.input, self.archive, code=1)
        with mock.patch.object(Codec, "decode", side_effect=AssertionError):
            said = self.succeed("encode", self.input, self.archive, "--no-verify")
        self.assertIn("not verified", said)
