"""compress.py on the command line: files there and back, and what is refused in one line."""

import gzip
import lzma
import shutil
import struct
import tempfile
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from test_compression import dark, noise, small_model
from tiny import InFolder, run_command, save_model

import compress
import fmnist
from compress import encode
from compression.archive import Archive, read_archive, write_archive
from compression.codec import Codec
from compression.image_files import read_images
from compression.whole_model import whole_model
from inputs.command_line import InputError
from vae import PRETRAINED, load_model


class CommandLine(InFolder):
    """Images in files and a small model; what the command says and leaves behind."""

    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(mock.patch.object(compress, "load_model", cache(load_model)))
        models = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = small_model(width=512)  # that of every checkpoint
        cls.checkpoint = save_model(cls.model, models / "small.ckpt")
        cls.images, cls.grey = dark(7), np.zeros((4, 28, 28), np.uint8)
        cls.grey[:, 9:14, 9:14] = noise(4, 256)[:, :5, :5]  # most of them black: quickly coded

    def setUp(self):
        super().setUp()
        self.array = self.folder / "images.npy"
        np.save(self.array, self.images)
        self.idx = self.folder / "t10k-images-idx3-ubyte"
        self.idx.write_bytes(struct.pack(">4I", 0x803, 4, 28, 28) + self.grey.tobytes())
        self.archive = self.folder / "archive.vae"
        self.output = self.folder / "decoded.npy"

    def command(self, *arguments: object, code: int = 0) -> str:
        """What it says: on standard output or, if it ends with another code, as complaint."""
        model = () if arguments[0] == "info" else ("--checkpoint", self.checkpoint)
        ended, *said = run_command(compress.main, *arguments, *model)
        self.assertEqual((ended, said[code == 0]), (code, ""), said)
        return said[code > 0]

    def assert_refused(self, said: str, *arguments: object, code: int = 2) -> None:
        before = self.files()
        self.assertRegex(self.command(*arguments, code=code), f"^.*{said}.*\n$")
        self.assertEqual(self.files(), before)

    def files(self) -> dict[str, bytes]:
        paths = self.folder.rglob("*")
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    def there_and_back(self, source: Path, name: str, *options: object) -> Path:
        target = self.folder / name
        self.command("encode", source, self.archive, "--force", *options)
        self.command("decode", self.archive, target)
        return target


class TestFiles(CommandLine):
    """Round trips as files."""

    def test_arrays_and_idx_files_come_back_byte_for_byte_also_as_each_other(self):
        single, none, grey = (self.folder / f"{name}.npy" for name in ("single", "none", "grey"))
        np.save(single, self.images[:1, None])
        np.save(none, self.images[:0])
        np.save(grey, self.grey)
        zipped = self.folder / f"{self.idx.name}.gz"
        zipped.write_bytes(gzip.compress(self.idx.read_bytes()))
        for source, name, original in (
            (single, "new/1.npy", single),
            (none, "0.npy", none),
            (zipped, "back.npy", grey),
            (grey, "back-ubyte", self.idx),
            (self.idx, "back.idx", self.idx),
        ):
            back = self.there_and_back(source, name, *(("--levels", 256) * (source == grey)))
            self.assertEqual(back.read_bytes(), original.read_bytes(), name)

    def test_info_tells_what_is_in_an_archive_without_the_model(self):
        self.assertIn("verified by decoding it", self.command("encode", self.array, self.archive))
        digest, said = whole_model(self.model).digest.hex(), self.command("info", self.archive)
        for words in ("[7, 28, 28]", digest, "start up"):
            self.assertIn(words, said)
        self.archive.write_bytes(encode(noise(3), self.model))
        said = self.command("info", self.archive)
        for words in ("as they are", "the shipped one or one without a name, digest"):
            self.assertIn(words, said)

    def test_the_number_of_levels_is_never_guessed(self):
        black = self.folder / "black.npy"
        np.save(black, self.grey // 17)
        for levels in (16, 256):
            self.there_and_back(black, f"{levels}.npy", "--levels", levels)
            self.assertIn(f"0..{levels - 1}", self.command("info", self.archive))
        discretized = np.load(self.there_and_back(self.idx, "few.npy", "--discretize"))
        self.assertTrue(np.array_equal(discretized, fmnist.four_bit(self.grey)))

    def test_a_folder_of_pictures_comes_back_under_its_names_with_links_and_no_hidden_files(self):
        folder, linked = self.folder / "digits", self.folder / "elsewhere"
        folder.mkdir()
        linked.mkdir()
        (folder / "7").symlink_to(linked)
        for name, picture in zip(("b.png", "a ü.PNG", "7/1.png", "7/b"), self.grey, strict=True):
            Image.fromarray(picture).save(folder / name, format="PNG")
        images, _, names = read_images(folder, None, False)
        self.assertEqual(names, ["7/1.png", "7/b", "a ü.PNG", "b.png"])
        self.assertTrue(np.array_equal(images, self.grey[[2, 3, 1, 0]]))
        shutil.copy(folder / "b.png", folder / ".2.png")
        said = self.command("encode", folder, self.archive)
        self.assertIn("not in the archive: 1\n", said)
        self.command("decode", self.archive, self.output.with_suffix(""))
        back = pictures_in(self.output.with_suffix(""))
        self.assertEqual(back, dict(zip(names, images.tolist(), strict=True)))
        (folder / "gone.png").symlink_to(self.folder / "nowhere")
        self.assert_refused("gone.png", "encode", folder, self.folder / "other.vae")

    def test_pictures_without_names_are_numbered_and_their_numbers_cost_nothing(self):
        sizes = []
        for source, name in ((self.idx, "digits"), (self.folder / "digits", "again-ubyte")):
            back = self.there_and_back(source, name)
            sizes.append(self.archive.stat().st_size)
        self.assertEqual(*sizes)
        self.assertEqual(back.read_bytes(), self.idx.read_bytes())
        names = sorted(file.name for file in (self.folder / "digits").iterdir())
        self.assertEqual(names, [f"{number:05}.png" for number in range(4)])

    def test_one_picture_comes_back_as_one_and_of_16_levels_it_shows_17_times_the_level(self):
        np.save(self.array, self.images[:1])
        picture = self.there_and_back(self.array, "picture.png")
        self.assertTrue(np.array_equal(np.array(Image.open(picture)), self.images[0] * 17))
        again = self.there_and_back(picture, "again.npy", "--levels", 16)
        self.assertEqual(again.read_bytes(), self.array.read_bytes())
        Image.fromarray(self.grey[0]).save(picture)
        self.assert_refused("17 times", "encode", picture, self.folder / "x.vae", "--levels", 16)

    def test_an_archive_of_a_run_names_the_checkpoint_to_keep(self):
        run = self.folder / "logs" / "version_0"
        kept = run / "checkpoints" / "best_val_bpd_3.0000.ckpt"
        kept.parent.mkdir(parents=True)
        shutil.copy(self.checkpoint, kept)
        self.checkpoint = run
        self.assertIn(f"keep {kept}", self.command("encode", self.array, self.archive))
        wanted = "logs/version_0/checkpoints/best_val_bpd_3.0000.ckpt"
        self.assertIn(wanted, self.command("info", self.archive))
        self.checkpoint = PRETRAINED
        self.assert_refused(f"another model, {wanted}", "decode", self.archive, self.output)

    def test_an_archive_with_its_model_outlives_the_checkpoint(self):
        quick = partial(lzma.compress, preset=0)
        with mock.patch("lzma.compress", quick):
            said = self.command("encode", self.array, self.archive, "--with_model")
        self.assertIn("contains its model", said)
        self.assertIn("in the archive", self.command("info", self.archive))
        self.checkpoint = self.folder / "gone.ckpt"
        self.command("decode", self.archive, self.output)
        self.assertTrue(np.array_equal(np.load(self.output), self.images))

    def test_images_of_two_levels_come_back_and_others_are_refused(self):
        model = small_model(num_levels=2, width=512)
        self.checkpoint = save_model(model, self.folder / "two.ckpt")
        np.save(self.array, noise(3, 2))
        back = self.there_and_back(self.array, "back")
        images, levels, _ = read_images(back, 2, False)
        self.assertTrue(levels == 2 and np.array_equal(images, noise(3, 2)))
        other = self.folder / "other.vae"
        self.assert_refused("with 2 grey levels, got 256", "encode", self.idx, other)


def pictures_in(folder: Path) -> dict[str, list]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): np.array(Image.open(file)).tolist() for file in files}


class TestRefusals(CommandLine):
    def assert_no_images(self, name: str, said: str = "", *how: object) -> None:
        with self.assertRaisesRegex(InputError, f"^.*{name} cannot be used: .*{said}.*$"):
            read_images(self.folder / name, *(how or (None, False)))

    def test_files_that_are_no_images_are_refused_by_name(self):
        for name, array, said in (
            ("float.npy", self.images / 15, "uint8.*float64"),
            ("shape.npy", self.images[:, 1:], r"\[7, 27, 28\]"),
            ("number.npy", np.uint8(3), r"\[\]"),
            ("value.npy", self.images * 3, "0..15.*21"),
        ):
            np.save(self.folder / name, array)
            self.assert_no_images(name, said)
        whole, zipped = self.array.read_bytes(), gzip.compress(self.idx.read_bytes())[:-9]
        for name, file in (("short.npy", whole[:-1]), ("empty", b""), ("damaged.gz", zipped)):
            (self.folder / name).write_bytes(file)
            self.assert_no_images(name)
        self.assert_no_images(self.idx.name, "0..15.*25", 16, False)
        self.assert_no_images(self.array.name, "levels already", None, True)
        missing = self.folder / "missing.npy"
        self.assert_refused("missing.npy.*No such file", "encode", missing, self.archive)
        self.assert_refused("--levels.*17", "encode", self.array, self.archive, "--levels", 17)

    def test_pictures_that_are_something_else_are_refused_by_name(self):
        folder = self.folder / "digits"
        folder.mkdir()
        self.assert_no_images("digits", "empty")
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
                self.assert_no_images("digits", f"5.png.*{said}")
        grey.save(folder / "5.png")
        (folder / "6.png").write_bytes((folder / "5.png").read_bytes()[:-30])
        self.assert_no_images("digits", "6.png")
        (folder / "6.png").rename(folder / "notes.txt")
        self.assert_no_images("digits", "notes.txt")

    def test_what_is_there_is_kept_unless_forced_and_never_a_folder(self):
        self.assert_refused("the images themselves", "encode", self.array, self.array, "--force")
        nowhere = self.array / "archive.vae"
        self.assert_refused("images.npy.*cannot be written", "encode", self.array, nowhere)
        made = self.folder / "made.vae"
        made.write_bytes(encode(self.images, self.model))
        for name, said in (("7.png", "has 7.*folder"), ("back-ubyte.gz", "without .gz")):
            self.assert_refused(said, "decode", made, self.folder / name)
        folder = self.folder / "digits"
        folder.mkdir()
        for command, source, target in (
            ("encode", self.array, self.archive),
            ("decode", made, self.output),
        ):
            target.write_bytes(b"precious")
            self.assert_refused(f"{target.name} exists.*--force", command, source, target)
            self.assert_refused("digits is a folder", command, source, folder, "--force")
            self.command(command, source, target, "--force")
            self.assertNotEqual(target.read_bytes(), b"precious")

    def test_bad_archives_are_refused_with_nothing_written(self):
        whole, decoding = encode(self.images, self.model), ("decode", self.archive, self.output)
        self.assert_refused("archive.vae.*No such file", *decoding)
        header, content, *_ = read_archive(whole)
        for archive, said in (
            (whole[:-1], "truncated or altered"),
            (b"", "no archive"),
            ({"pixels": 1}, "do not match"),
            ({"count": 8}, "do not match"),
            ({"model": bytes(8)}, "another model, the shipped one"),
        ):
            if isinstance(archive, dict):
                archive = write_archive(Archive(header._replace(**archive), content))
            self.archive.write_bytes(archive)
            self.assert_refused(said, *decoding)
        self.checkpoint = self.folder / "nothing.ckpt"
        self.assert_refused("nothing.ckpt", *decoding)

    def test_what_does_not_decode_to_the_images_is_not_written_unless_that_is_not_asked(self):
        for wrong in ({"return_value": self.images[::-1]}, {"side_effect": InputError("no")}):
            with mock.patch.object(Codec, "decode", **wrong):
                self.assert_refused("not decode", "encode", self.array, self.archive, code=1)
        with mock.patch.object(Codec, "decode", side_effect=AssertionError):
            said = self.command("encode", self.array, self.archive, "--no-verify")
        self.assertIn("not verified", said)
