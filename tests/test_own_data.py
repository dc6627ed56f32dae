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
import pytorch_lightning as pl
import torch
from PIL import Image

import evaluate
import own_data
import sample
import train_pl
from boundary.command_line import InputError
from boundary.files import read_idx
from fmnist import DATA_DIR, four_bit
from judging.samples import classify, load_classifier
from own_data import OwnDataModule, data_for, mnist_form, read_own
from tests.tiny import InFolder

RAW = DATA_DIR / "MNIST" / "raw"


def digits(count: int) -> np.ndarray:
    """Test images of MNIST, uint8 [N, 28, 28] in 0..255."""
    return read_idx(RAW / "t10k-images-idx3-ubyte.gz")[:count].copy()


def write_pictures(folder: Path, images: np.ndarray, classes: list[str]) -> None:
    """A picture of each in the folder of its class: RGB and inverted, transparent, or as it is."""
    for number, (image, name) in enumerate(zip(images, classes, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        ink, none = image, np.zeros_like(image)
        picture = (
            Image.fromarray(np.stack([255 - ink] * 3, axis=2)),  # black on white
            Image.fromarray(np.stack([none, none, none, ink], axis=2)),  # black on nothing
            Image.fromarray(np.stack([255 - none] * 3 + [ink], axis=2)),  # white on nothing
            Image.fromarray(ink),
        )[number % 4]
        picture.save(folder / name / f"{number:04}.png")


class OwnDataTest(InFolder):
    def setUp(self):
        super().setUp()
        self.images = digits(240)
        self.levels = four_bit(self.images)
        self.names = [f"letter {'ab$'[n % 3]}" for n in range(len(self.images))]

    def npz(self, **arrays: np.ndarray) -> Path:
        np.savez(self.folder / "own.npz", **arrays)
        return self.folder / "own.npz"

    def idx(self, name: str, array: np.ndarray) -> Path:
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (self.folder / name).write_bytes(header + array.tobytes())
        return self.folder / name

    def assert_images(self, path: Path, images: np.ndarray, **how: object) -> None:
        self.assertTrue(np.array_equal(read_own(path, **how).data.images[:, 0].numpy(), images))


class TestArrays(OwnDataTest):
    def test_images_and_labels_of_any_values_are_read_from_an_npz_file(self):
        for labels, classes in (
            (np.arange(240) % 3 + 5, ("5", "6", "7")),
            (np.array(self.names), ("letter $", "letter a", "letter b")),
        ):
            path = self.npz(images=self.images, labels=labels)
            self.assert_images(path, self.levels)
            data = read_own(path).data
            self.assertEqual(data.classes, classes)
            named = [classes[label] for label in data.labels.tolist()]
            self.assertEqual(named, [str(label) for label in labels])

    def test_arrays_without_labels_have_no_classes(self):
        np.save(self.folder / "own.npy", self.images[:, np.newaxis])
        for path in (self.npz(images=self.images), self.folder / "own.npy"):
            self.assert_images(path, self.levels)
            data = read_own(path).data
            self.assertEqual((data.classes, data.labels.unique().tolist()), ((), [0]))

    def test_sixteen_levels_stay_as_they_are(self):
        self.assert_images(self.npz(images=self.levels), self.levels, levels=16)

    def test_an_idx_file_is_read_with_the_labels_beside_it(self):
        path = self.idx("my-images-idx3-ubyte", self.images)
        self.assertEqual(read_own(path).data.classes, ())
        self.idx("my-labels-idx1-ubyte", (np.arange(240) % 2).astype(np.uint8))
        self.assert_images(path, self.levels)
        self.assertEqual(read_own(path).data.classes, ("0", "1"))

    def test_emnists_files_are_turned_upright(self):
        stored = np.ascontiguousarray(self.images.transpose(0, 2, 1))
        path = self.idx("emnist-letters-train-images-idx3-ubyte", stored)
        self.assert_images(path, self.levels)

    def test_what_cannot_be_trained_on_is_refused_in_one_line(self):
        def npz(**arrays: np.ndarray):
            return lambda: read_own(self.npz(**arrays))

        images, labels = self.images, np.zeros(240, np.int64)
        text = self.folder / "text.npz"
        text.write_text("no array")
        pickled = self.folder / "pickled.npy"
        np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
        picture = self.folder / "one.png"
        Image.fromarray(images[0]).save(picture)
        cases = {
            "missing.npz: No such file": lambda: read_own(self.folder / "missing.npz"),
            "no images": npz(images=images[:0]),
            "one image": npz(images=images[:1]),
            "100 images: .* at least 200": npz(images=images[:100]),
            "no array `images`, only x": npz(x=images),
            "images are float64, expected uint8.*astype": npz(images=images / 255),
            r"\[240, 14, 28\], expected.*--like_mnist": npz(images=images[:, ::2]),
            r"\[240, 28, 28, 3\], expected": npz(images=np.stack([images] * 3, axis=3)),
            "--levels 16": npz(images=self.levels),
            "up to 255, expected 0..15": lambda: read_own(self.npz(images=images), levels=16),
            r"int64 \[239\].* each of 240": npz(images=images, labels=labels[1:]),
            "labels are float64": npz(images=images, labels=labels / 2),
            "240 values, expected at most 100": npz(images=images, labels=np.arange(240)),
            "not an IDX file.* folder of pictures": lambda: read_own(picture),
            "image 0, .*nothing is on it": lambda: read_own(
                self.npz(images=np.full_like(images, 40)), like_mnist=True
            ),
            "text.npz": lambda: read_own(text),
            "pickled.npy: Object arrays": lambda: read_own(pickled),
        }
        for line, read in cases.items():
            with self.subTest(line), self.assertRaisesRegex(InputError, line) as refused:
                read()
            self.assertRegex(str(refused.exception), "^argument --data: [^\n]*$")


class TestPictures(OwnDataTest):
    def test_subfolders_are_classes_and_colours_transparency_and_inversion_make_no_difference(self):
        write_pictures(self.folder, self.images, self.names)
        (self.folder / ".DS_Store").touch()
        (self.folder / "letter a" / "Thumbs.db").touch()
        own = read_own(self.folder)
        order = np.argsort(self.names, kind="stable")
        self.assertTrue(np.array_equal(own.data.images[:, 0].numpy(), self.levels[order]))
        named = [own.data.classes[label] for label in own.data.labels.tolist()]
        self.assertEqual(named, sorted(self.names))

    def test_a_folder_without_subfolders_has_no_classes(self):
        write_pictures(self.folder / "all", self.images, ["."] * 240)
        self.assertEqual(read_own(self.folder / "all").data.classes, ())

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
        write_pictures(self.folder / "good", self.images, self.names)

        def altered(number: int) -> Path:
            return Path(shutil.copytree(self.folder / "good", self.folder / f"bad{number}"))

        folders = [altered(number) for number in range(6)]
        (folders[0] / "letter a" / "notes.txt").write_text("text")
        (folders[1] / "stray.png").touch()
        (folders[2] / "empty").mkdir()
        (folders[3] / "letter b" / "deeper").mkdir()
        Image.new("I;16", (28, 28)).save(folders[4] / "letter b" / "deep.png")
        for file in folders[5].glob("*/*"):
            file.unlink()
        for folder, line in zip(
            folders,
            (
                "letter a/notes.txt is no picture",
                "stray.png lies beside folders",
                "no images in empty",
                "letter b/deeper is no picture",
                "letter b/deep.png .*8 bits",
                "no images in letter",
            ),
            strict=True,
        ):
            with self.subTest(line), self.assertRaisesRegex(InputError, line):
                read_own(folder)
        with self.assertRaisesRegex(InputError, "leave --levels out"):
            read_own(self.folder / "good", levels=16)


class TestMnistForm(unittest.TestCase):
    def test_a_digit_in_a_large_picture_comes_back_as_it_was(self):
        images, labels = digits(200), read_idx(RAW / "t10k-labels-idx1-ubyte.gz")[:200]
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
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            self.assertEqual(max(height, width), 20)
            for axis in (0, 1):
                mass = image.sum(axis=1 - axis)
                self.assertAlmostEqual((mass @ np.arange(28)) / mass.sum(), 14, delta=0.51)

    def test_an_empty_page_is_refused(self):
        for page in (np.zeros((50, 50), np.uint8), np.full((50, 50), 240, np.uint8)):
            with self.assertRaisesRegex(ValueError, "nothing"):
                mnist_form(page)


class TestSplit(OwnDataTest):
    def test_it_is_a_tenth_each_without_overlap_and_the_same_for_every_seed(self):
        path = self.npz(images=self.images, labels=np.arange(240) // 3)
        parts = read_own(path).split()
        self.assertEqual([len(part) for part in parts], [192, 24, 24])
        together = torch.cat([part.images for part in parts])
        self.assertEqual(
            sorted(image.numpy().tobytes() for image in together),
            sorted(image.tobytes() for image in self.levels),
        )
        for seed in (1, 2):
            module = OwnDataModule(read_own(path), seed=seed)
            module.setup("fit")
            for part, same in zip(parts, (module.train, module.val, module.test), strict=True):
                self.assertTrue(torch.equal(part.images, same.images))


class TestCommands(OwnDataTest):
    """One run on a folder of pictures of three classes, and everything after it."""

    def setUp(self):
        super().setUp()
        self.pictures, self.run = self.folder / "pictures", self.folder / "logs" / "version_0"
        write_pictures(self.pictures, self.images, self.names)

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
        record = json.loads((self.run / "result.json").read_text())["trained_on"]
        self.assertEqual((record["dataset"], record["data"]), ("pictures", str(self.pictures)))
        self.assertEqual(record["classes"], ["letter $", "letter a", "letter b"])
        output = self.folder / "out.npy"
        self.ended(sample, self.run, "--label", "letter b", "--num", 5, "--output", output)
        self.assertEqual(np.load(output).shape, (5, 28, 28))
        line = self.ended(sample, self.run, "--label", "c", "--output", output)
        self.assertIn("no class 'c': one of letter $, letter a, letter b", line)
        short = ("--iwae_samples", 1, "--output", self.folder / "judged")
        table = self.ended(evaluate, self.run, *short)
        self.assertIn("24 images, pictures test", table)
        self.assertNotIn("other images", table)

        moved = self.pictures.rename(self.folder / "moved")
        self.assertIn("the model was trained on it", self.ended(evaluate, self.run, *short))
        table = self.ended(evaluate, self.run, *short, "--data", moved)
        self.assertNotIn("other images", table)
        self.train(resume=self.run, epochs=2, data=moved)

        next(moved.glob("*/*")).unlink()
        self.assertIn("other images", self.ended(evaluate, self.run, *short, "--data", moved))
        with self.assertRaisesRegex(InputError, "not those that the run began with"):
            self.train(resume=self.run, epochs=3)
        last = self.run / "checkpoints" / "last.ckpt"  # knows where the images are now
        self.assertIn("have changed", self.ended(evaluate, last, *short))

    def test_the_file_itself_shows_what_is_read(self):
        output = self.folder / "read.npy"
        said = self.ended(own_data, self.pictures, "--output", output)
        self.assertTrue(np.array_equal(np.load(output), read_own(self.pictures).data.images[:, 0]))
        self.assertIn("240 images; letter $ 80, letter a 80, letter b 80", said)
        picture = self.folder / "read.png"
        self.ended(own_data, self.pictures, "--output", picture)
        with Image.open(picture) as shown:
            self.assertEqual(shown.size, (20 * 29 + 1, 12 * 29 + 1))
        self.assertIn("there already", self.ended(own_data, self.pictures, "--output", picture))
        self.assertIn(".png or .npy", self.ended(own_data, self.pictures, "--output", "x.txt"))

    def test_models_of_other_data_modules_have_classes_by_their_number(self):
        checkpoint = self.folder / "model.ckpt"
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(train_pl.VAE(2, 2, num_classes=3))
        trainer.save_checkpoint(checkpoint, weights_only=True)
        output = self.folder / "out.npy"
        for record in (None, {"batch_size": 4}, [1], "text"):
            content = torch.load(checkpoint, weights_only=True)
            torch.save(content | {"datamodule_hyper_parameters": record}, checkpoint)
            self.assertIn(
                "64 images", self.ended(sample, checkpoint, "--label", 2, "--output", output)
            )
            line = self.ended(sample, checkpoint, "--label", 7, "--output", output)
            self.assertIn("no class '7': one of 0, 1, 2", line)

    def test_images_in_a_folder_with_an_official_name_are_ones_own(self):
        folder = self.pictures.rename(self.folder / "MNIST")
        self.train(data=folder)
        self.assertFalse("samples" in json.loads((self.run / "result.json").read_text()))
        short = ("--iwae_samples", 1, "--output", self.folder / "judged", "--limit", 8)
        table = self.ended(evaluate, self.run, *short)
        self.assertIn("8 images, own MNIST test", table)
        self.assertNotIn("classifier", table)

    def test_images_without_labels_train_and_have_no_class_to_choose(self):
        self.train(data=self.npz(images=self.images))
        self.assertFalse((self.run / "epoch_1_samples_by_class.png").exists())
        line = self.ended(sample, self.run, "--label", 0, "--output", self.folder / "x.png")
        self.assertIn("trained without any", line)

    def test_the_shipped_model_judges_other_images(self):
        path = self.npz(images=self.images, labels=np.arange(240) // 20)  # 12 classes, it has ten
        short = ("--iwae_samples", 1, "--output", self.folder / "judged", "--limit", 20)
        table = self.ended(evaluate, *short, "--data", path)
        self.assertIn("20 images, own.npz test", table)
        self.assertIn("other images, those of MNIST", table)

    def test_options_that_do_not_go_together_are_refused(self):
        for options, line in (
            ({"like_mnist": True}, "--like_mnist: it is for --data"),
            ({"levels": 16}, "--levels: it is for --data"),
            ({"data": self.pictures, "dataset": "KMNIST"}, "in the place|takes the place"),
        ):
            with self.assertRaisesRegex(InputError, line):
                self.train(**options)
        with self.assertRaisesRegex(InputError, "takes the place"):
            data_for(train_pl.PRETRAINED, "MNIST", str(self.pictures))
        with self.assertRaisesRegex(InputError, r"VAE\(num_classes=3"):
            small = Namespace(data=self.pictures, num_filters=2, log_dir=self.folder / "logs")
            train_pl.train_vae(small, model=train_pl.VAE(2, 2))
        self.assertFalse((self.folder / "logs").exists())


if __name__ == "__main__":
    unittest.main()
