"""Images of one's own: what is read of them, what is refused, and that every command knows them."""

import json
import shutil
import struct
import unittest
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import InFolder, save_model

import evaluate
import own_data
import sample
import train_pl
from fmnist import DATA_DIR, four_bit
from inputs.command_line import InputError
from inputs.files import read_idx
from judging.samples import classify, load_classifier
from reading.choice import OwnDataModule, data_for
from reading.own import read_own
from reading.photo import mnist_form

RAW = DATA_DIR / "MNIST" / "raw"
DIGITS = read_idx(RAW / "t10k-images-idx3-ubyte.gz")[:240].copy()  # 0..255
LEVELS = four_bit(DIGITS)
NAMES = [f"letter {'ab$'[n % 3]}" for n in range(240)]
CLASSES = ("letter $", "letter a", "letter b")


def write_pictures(folder: Path, classes: list[str] = NAMES) -> None:
    """Each digit in the folder of its class: RGB and inverted, transparent, or as it is."""
    for number, (ink, name) in enumerate(zip(DIGITS, classes, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        none = np.zeros_like(ink)
        picture = (
            Image.fromarray(np.stack([255 - ink] * 3, axis=2)),  # black on white
            Image.fromarray(np.stack([none, none, none, ink], axis=2)),  # black on nothing
            Image.fromarray(np.stack([255 - none] * 3 + [ink], axis=2)),  # white on nothing
            Image.fromarray(ink),
        )[number % 4]
        picture.save(folder / name / f"{number:04}.png")


class OwnDataTest(InFolder):
    def npz(self, **arrays: np.ndarray) -> Path:
        np.savez(self.folder / "own.npz", **arrays)
        return self.folder / "own.npz"

    def idx(self, name: str, array: np.ndarray) -> Path:
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (self.folder / name).write_bytes(header + array.tobytes())
        return self.folder / name

    def assert_read(
        self, path: Path, images: np.ndarray, labels: list[str] | None = None, **how: object
    ) -> None:
        """Whether these images are read and, of each, the name of its class, if there is any."""
        data = read_own(path, **how).data
        self.assertTrue(np.array_equal(data.images[:, 0].numpy(), images))
        numbers = data.labels.tolist()
        if labels is None:
            self.assertEqual((data.classes, {*numbers}), ((), {0}))
        else:
            self.assertEqual(data.classes, tuple(sorted({*labels})))
            self.assertEqual([data.classes[number] for number in numbers], labels)


class TestArrays(OwnDataTest):
    def test_images_are_read_with_labels_of_any_values_or_without(self):
        np.save(self.folder / "own.npy", DIGITS[:, np.newaxis])
        fives = np.arange(240) % 3 + 5
        self.assert_read(self.folder / "own.npy", LEVELS)
        self.assert_read(self.npz(images=DIGITS), LEVELS)
        self.assert_read(self.npz(images=DIGITS, labels=fives), LEVELS, [*map(str, fives)])
        self.assert_read(self.npz(images=DIGITS, labels=np.array(NAMES)), LEVELS, NAMES)
        self.assert_read(self.npz(images=LEVELS), LEVELS, levels=16)

    def test_an_idx_file_is_read_with_the_labels_beside_it_and_emnists_are_turned_upright(self):
        path = self.idx("my-images-idx3-ubyte", DIGITS)
        self.assert_read(path, LEVELS)
        self.idx("my-labels-idx1-ubyte", (np.arange(240) % 2).astype(np.uint8))
        self.assert_read(path, LEVELS, ["0", "1"] * 120)
        stored = np.ascontiguousarray(DIGITS.transpose(0, 2, 1))
        self.assert_read(self.idx("emnist-letters-train-images-idx3-ubyte", stored), LEVELS)

    def test_what_cannot_be_trained_on_is_refused_in_one_line(self):
        labels, texts = np.zeros(240, np.int64), self.folder / "text.npz"
        texts.write_text("no array")
        pickled, picture = self.folder / "pickled.npy", self.folder / "one.png"
        np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
        Image.fromarray(DIGITS[0]).save(picture)
        for line, source, how in (
            ("missing.npz: No such file", self.folder / "missing.npz", {}),
            ("images: 0, expected at least 200", {"images": DIGITS[:0]}, {}),
            ("images: 100, expected at least 200", {"images": DIGITS[:100]}, {}),
            ("no array `images`, only x", {"x": DIGITS}, {}),
            ("images are float64, expected uint8.*astype", {"images": DIGITS / 255}, {}),
            (r"\[240, 14, 28\], expected.*--like_mnist", {"images": DIGITS[:, ::2]}, {}),
            (r"\[240, 28, 28, 3\], expected", {"images": np.stack([DIGITS] * 3, axis=3)}, {}),
            ("--levels 16", {"images": LEVELS}, {}),
            ("up to 255, expected 0..15", {"images": DIGITS}, {"levels": 16}),
            (r"int64 \[239\].* each of 240", {"images": DIGITS, "labels": labels[1:]}, {}),
            ("labels are float64", {"images": DIGITS, "labels": labels / 2}, {}),
            ("240 classes, expected at most 100", {"images": DIGITS, "labels": range(240)}, {}),
            ("not an IDX file.* folder of pictures", picture, {}),
            ("image 0, .*nothing", {"images": np.full_like(DIGITS, 40)}, {"like_mnist": True}),
            ("text.npz", texts, {}),
            ("pickled.npy: Object arrays", pickled, {}),
        ):
            path = self.npz(**source) if isinstance(source, dict) else source
            with self.subTest(line), self.assertRaisesRegex(InputError, line) as refused:
                read_own(path, **how)
            self.assertRegex(str(refused.exception), "^argument --data: [^\n]*$")


class TestPictures(OwnDataTest):
    def test_subfolders_are_classes_and_colours_transparency_and_inversion_make_no_difference(self):
        write_pictures(self.folder / "named")
        (self.folder / "named" / ".DS_Store").touch()
        (self.folder / "named" / "letter a" / "Thumbs.db").touch()
        order = np.argsort(NAMES, kind="stable")
        self.assert_read(self.folder / "named", LEVELS[order], sorted(NAMES))
        write_pictures(self.folder / "MNIST", ["."] * 240)
        self.assert_read(self.folder / "MNIST", LEVELS)
        # An official name would call the official classifier and codec in.
        self.assertEqual(read_own(self.folder / "MNIST").record["dataset"], "own MNIST")

    def test_pictures_of_any_size_and_format_are_fitted_without_distortion(self):
        square = np.zeros((240, 140, 70), np.uint8)
        square[:, 35:105] = 255  # a white square on black, in a picture twice as high as wide
        for number, image in enumerate(square):
            suffix = ("png", "jpg", "bmp", "gif", "tiff", "webp")[number % 6]
            Image.fromarray(image).save(self.folder / f"{number}.{suffix}")
        images = read_own(self.folder).data.images[:, 0]
        expected = torch.zeros(28, 28)
        expected[7:21, 7:21] = 15
        self.assertLess((images - expected).abs().float().mean().item(), 0.2)

    def test_what_cannot_be_trained_on_is_refused_by_its_name_in_one_line(self):
        good = self.folder / "good"
        write_pictures(good)
        for line, alter in (
            ("letter a/notes.txt is no picture", lambda f: (f / "letter a/notes.txt").touch()),
            ("stray.png lies beside folders", lambda f: (f / "stray.png").touch()),
            ("no images in empty", lambda f: (f / "empty").mkdir()),
            ("letter b/deeper is no picture", lambda f: (f / "letter b/deeper").mkdir()),
            (
                "letter b/deep.png .*8 bits",
                lambda f: Image.new("I;16", (28, 28)).save(f / "letter b/deep.png"),
            ),
            ("no images in bad", lambda f: [shutil.rmtree(f / name) for name in CLASSES]),
        ):
            with self.subTest(line):
                folder = Path(shutil.copytree(good, self.folder / "bad"))
                alter(folder)
                with self.assertRaisesRegex(InputError, f"^argument --data: [^\n]*{line}[^\n]*$"):
                    read_own(folder)
                shutil.rmtree(folder)
        with self.assertRaisesRegex(InputError, "leave --levels out"):
            read_own(good, levels=16)


class TestMnistForm(unittest.TestCase):
    def test_a_digit_in_a_large_picture_comes_back_as_it_was(self):
        images, labels = DIGITS[:200], read_idx(RAW / "t10k-labels-idx1-ubyte.gz")[:200]
        formed = []
        for number, image in enumerate(images):
            large = Image.fromarray(image).resize((140, 140), Image.Resampling.BICUBIC)
            paper = np.zeros((260, 400), np.uint8)
            paper[number % 100 :][:140, number:][:, :140] = large
            formed.append(mnist_form(255 - paper if number % 2 else paper))
        formed = np.stack(formed)
        self.assertLess(np.abs(formed.astype(float) - images).mean(), 0.25 * images.mean())
        _, logits = classify(load_classifier(), torch.from_numpy(four_bit(formed)).unsqueeze(1))
        right = (logits.argmax(dim=1).numpy() == labels).mean()
        self.assertGreater(right, 0.97)

    def test_the_box_is_20x20_and_the_centre_of_mass_in_the_middle(self):
        for shape in ((300, 10), (10, 300), (7, 7), (1, 50)):
            picture = np.zeros((400, 400), np.uint8)
            picture[20 : 20 + shape[0], 60 : 60 + shape[1]] = 200
            image = mnist_form(picture).astype(float)
            rows, columns = np.nonzero(image > 30)
            self.assertEqual(max(np.ptp(rows), np.ptp(columns)) + 1, 20)
            for axis in (0, 1):
                mass = image.sum(axis=1 - axis)
                self.assertAlmostEqual((mass @ np.arange(28)) / mass.sum(), 14, delta=0.51)

    def test_an_empty_page_is_refused(self):
        for page in (np.zeros((50, 50), np.uint8), np.full((50, 50), 240, np.uint8)):
            with self.assertRaisesRegex(ValueError, "nothing"):
                mnist_form(page)


class TestSplit(OwnDataTest):
    def test_it_is_a_tenth_each_without_overlap_and_the_same_for_every_seed(self):
        path = self.npz(images=DIGITS, labels=np.arange(240) // 3)
        parts = read_own(path).split()
        self.assertEqual([len(part) for part in parts], [192, 24, 24])
        together = [image.numpy().tobytes() for part in parts for image in part.images]
        self.assertEqual(sorted(together), sorted(image.tobytes() for image in LEVELS))
        for seed in (1, 2):
            module = OwnDataModule(read_own(path), seed=seed)
            module.setup("fit")
            for part, same in zip(parts, (module.train, module.val, module.test), strict=True):
                self.assertTrue(torch.equal(part.images, same.images))


class TestCommands(OwnDataTest):
    """A folder of pictures of three classes, a run on it, and everything after it."""

    def setUp(self):
        super().setUp()
        self.pictures, self.run = self.folder / "pictures", self.folder / "logs" / "version_0"
        write_pictures(self.pictures)
        self.short = ("--iwae_samples", 1, "--output", self.folder / "judged", "--limit", 20)

    def train(self, **options: object) -> None:
        small = {"num_filters": 2, "z_dim": 2, "epochs": 1, "accelerator": "cpu"}
        with redirect_stdout(StringIO()):
            train_pl.train_vae(Namespace(**{**small, "log_dir": self.folder / "logs", **options}))

    def ended(self, command: object, *arguments: object) -> str:
        """What a command says; its complaint, if it ends with one."""
        said, complaint = StringIO(), StringIO()
        with redirect_stdout(said), redirect_stderr(complaint):
            try:
                command.main([*map(str, arguments)])
            except SystemExit:
                self.assertEqual(len(complaint.getvalue().splitlines()), 1, complaint.getvalue())
                return complaint.getvalue()
        return said.getvalue()

    def test_sampling_judging_and_resuming_know_the_images_of_the_training(self):
        self.train(data=self.pictures)
        self.assertTrue((self.run / "epoch_1_samples_by_class.png").exists())
        result = json.loads((self.run / "result.json").read_text())
        record = result["trained_on"]
        self.assertEqual((record["dataset"], record["data"]), ("pictures", str(self.pictures)))
        self.assertEqual(record["classes"], [*CLASSES])
        self.assertNotIn("samples", result)  # MNIST's classifier does not know such images
        output = self.folder / "out.npy"
        self.ended(sample, self.run, "--label", "letter b", "--num", 5, "--output", output)
        self.assertEqual(np.load(output).shape, (5, 28, 28))
        line = self.ended(sample, self.run, "--label", "c", "--output", output)
        self.assertIn("no class 'c': one of letter $, letter a, letter b", line)
        table = self.ended(evaluate, self.run, *self.short)
        self.assertIn("20 images, pictures test", table)
        self.assertNotIn("other images", table)

        moved = self.pictures.rename(self.folder / "moved")
        self.assertIn("the model was trained on it", self.ended(evaluate, self.run, *self.short))
        table = self.ended(evaluate, self.run, *self.short, "--data", moved)
        self.assertNotIn("other images", table)
        self.train(resume=self.run, epochs=2, data=moved)

        next(moved.glob("*/*")).unlink()
        self.assertIn("other images", self.ended(evaluate, self.run, *self.short, "--data", moved))
        with self.assertRaisesRegex(InputError, "not those that the run began with"):
            self.train(resume=self.run, epochs=3)
        last = self.run / "checkpoints" / "last.ckpt"  # knows where the images are now
        self.assertIn("have changed", self.ended(evaluate, last, *self.short))

    def test_the_file_itself_shows_what_is_read(self):
        output, picture = self.folder / "read.npy", self.folder / "read.png"
        said = self.ended(own_data, self.pictures, "--output", output)
        self.assertTrue(np.array_equal(np.load(output), read_own(self.pictures).data.images[:, 0]))
        self.assertIn("240 images; letter $ 80, letter a 80, letter b 80", said)
        self.ended(own_data, self.pictures, "--output", picture)
        with Image.open(picture) as shown:
            self.assertEqual(shown.size, (20 * 29 + 1, 12 * 29 + 1))
        self.assertIn("there already", self.ended(own_data, self.pictures, "--output", picture))
        self.assertIn(".png or .npy", self.ended(own_data, self.pictures, "--output", "x.txt"))

    def test_models_of_other_data_modules_have_classes_by_their_number(self):
        model, checkpoint = train_pl.VAE(2, 2, num_classes=3), self.folder / "model.ckpt"
        sevens = ("--output", self.folder / "out.npy", "--label")
        for record in (None, {"batch_size": 4}, {"dataset": "photos", "classes": 3}, [1], "text"):
            save_model(model, checkpoint, datamodule_hyper_parameters=record)
            self.assertIn("64 images", self.ended(sample, checkpoint, *sevens, 2))
            line = self.ended(sample, checkpoint, *sevens, 7)
            self.assertIn("no class '7': one of 0, 1, 2", line)

    def test_images_without_labels_train_and_have_no_class_to_choose(self):
        self.train(data=self.npz(images=DIGITS))
        self.assertFalse((self.run / "epoch_1_samples_by_class.png").exists())
        line = self.ended(sample, self.run, "--label", 0, "--output", self.folder / "x.png")
        self.assertIn("trained without any", line)

    def test_the_shipped_model_judges_other_images(self):
        path = self.npz(images=DIGITS, labels=np.arange(240) // 20)  # 12 classes, it has ten
        table = self.ended(evaluate, *self.short, "--data", path)
        self.assertIn("20 images, own.npz test", table)
        self.assertIn("other images, those of MNIST", table)
        self.assertNotIn("classifier", table)

    def test_options_that_do_not_go_together_are_refused(self):
        for options, line in (
            ({"like_mnist": True}, "--like_mnist: it is for --data"),
            ({"levels": 16}, "--levels: it is for --data"),
            ({"data": self.pictures, "dataset": "KMNIST"}, "not both"),
        ):
            with self.assertRaisesRegex(InputError, line):
                self.train(**options)
        with self.assertRaisesRegex(InputError, "not both"):
            data_for(train_pl.PRETRAINED, "MNIST", str(self.pictures))
        with self.assertRaisesRegex(InputError, r"VAE\(num_classes=3"):
            small = Namespace(data=self.pictures, num_filters=2, log_dir=self.folder / "logs")
            train_pl.train_vae(small, model=train_pl.VAE(2, 2))
        self.assertFalse((self.folder / "logs").exists())


if __name__ == "__main__":
    unittest.main()
