"""Images of one's own: what is read of them, what is refused, and that every command knows them."""

import gzip
import json
import shutil
import struct
import unittest
from argparse import Namespace
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from zipfile import ZipFile

import numpy as np
import torch
from photos import PHOTOS, photo
from PIL import Image
from tiny import (
    InFolder,
    prepare,
    random_model,
    run_command,
    save_model,
    undrawn,
    whole,
    without_pictures,
)

import evaluate
import explore
import fmnist
import own_data
import sample
import train_pl
from fmnist import DATA_DIR, DiscreteImages, four_bit
from inputs.command_line import InputError
from inputs.files import read_idx
from judging.report import of_test
from judging.samples import classify, load_classifier
from reading.arrays import READERS
from reading.choice import class_number, data_for
from reading.own import read_own
from reading.photo import mnist_form, photographed
from reading.pictures import FORMATS, HEIF
from reading.sources import ARCHIVES, TABLES
from runs.checkpoints import find_checkpoint

RAW = DATA_DIR / "MNIST" / "raw"
DIGITS = read_idx(RAW / "t10k-images-idx3-ubyte.gz")[:240].copy()  # 0..255
LABELS = read_idx(RAW / "t10k-labels-idx1-ubyte.gz")[:240].astype(int)
LEVELS, NUMBERS, FLAT = four_bit(DIGITS), np.arange(240), DIGITS.reshape(240, 784)
TURNED = DIGITS.transpose(0, 2, 1)  # rows and columns exchanged
PARTS = {"train": slice(200), "val": slice(200, 220), "test": slice(220, 240)}
DOCS = DATA_DIR.parent / "docs"
NAMES = [f"letter {'ab$'[n % 3]}" for n in range(240)]
CLASSES = ("letter $", "letter a", "letter b")


def disguised(number: int) -> np.ndarray:
    """A digit as other people's pictures have them, in turn in four ways."""
    ink, none = DIGITS[number], np.zeros((28, 28), np.uint8)
    return (
        np.stack([255 - ink] * 3, axis=2),  # black on white
        np.stack([none, none, none, ink], axis=2),  # black on nothing
        np.stack([255 - none] * 3 + [ink], axis=2),  # white on nothing
        ink,
    )[number % 4]


def png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pngs(images: Iterable[np.ndarray], labels: Iterable[object], top: str = "") -> dict[str, bytes]:
    """Pictures' files by their paths: each in the folder of its class."""
    pairs = zip(images, labels, strict=True)
    return {f"{top}{label}/{n:04}.png": png(image) for n, (image, label) in enumerate(pairs)}


def table(header: bool = True) -> str:
    """Labels and grey levels as Kaggle has them."""
    rows = [["label", *(f"pixel{n}" for n in range(784))]] * header
    rows += np.column_stack([LABELS, FLAT]).tolist()
    return "\n".join(",".join(map(str, row)) for row in rows)


def saved(path: Path, content: object) -> Path:
    """Writes text, bytes or arrays in the form that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str | bytes):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".zip":
        with ZipFile(path, "w") as archive:
            for name, file in content.items():
                archive.writestr(name, file)
    else:  # IDX
        kind, dtype = (12, ">i4") if path.name.endswith("int") else (8, ">u1")
        start = struct.pack(f">4B{content.ndim}I", 0, 0, kind, content.ndim, *content.shape)
        whole = start + content.astype(dtype).tobytes()
        path.write_bytes(gzip.compress(whole, 1) if path.suffix == ".gz" else whole)
    return path


def all_saved(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        saved(folder / name, content)
    return folder


def in_parts(form: str, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays for training, validation and test by their names, which have part and content."""
    both = (("images", images), ("labels", labels))
    return {form.format(p, what): a[which] for p, which in PARTS.items() for what, a in both}


IN_FOLDERS = {}
for part, which in PARTS.items():
    IN_FOLDERS |= pngs(DIGITS[which], LABELS[which], f"{part}/")
# By the first cell of a row in docs/own_data.md, the files; the first is given if not the folder.
KINDS = {
    "`.npy`": {
        **{"X_train.npy": DIGITS, "y_train.npy": LABELS, "y_test.npy": LABELS[::-1]},
        **{"X_train.npy.md5": "", "X_train.txt": ""},
    },
    "a folder of `.npy` files, one for each class": {
        f"full_numpy_bitmap_{label}.npy": FLAT[label == LABELS] for label in range(10)
    },
    "`.npz`": {"own.npz": in_parts("{}_{}", DIGITS, LABELS[:, np.newaxis])},
    "`.csv`": {"train.csv": table()},
    "`.pt`": {"training.pt": (torch.tensor(DIGITS), torch.tensor(LABELS))},
    "IDX": {
        "qmnist-train-images-idx3-ubyte.gz": DIGITS,
        "qmnist-train-labels-idx2-int": np.stack([LABELS, *[NUMBERS] * 7], axis=1),
    },
    "a folder of such files": {**in_parts("kmnist-{}-{}.npy", DIGITS, LABELS), "README.md": ""},
    "how the names of several such files begin": {
        **in_parts("emnist-letters-{}-{}-idx", TURNED, LABELS),
        **in_parts("emnist-mnist-{}-{}-idx", TURNED, LABELS),
        "emnist-letters-test-images-idx.gz": TURNED[PARTS["test"]],  # packed and unpacked
    },
    "a folder of pictures": pngs(DIGITS, LABELS),
    "a folder of pictures in `train`, `test`, `val`": IN_FOLDERS,
    "a folder of pictures with a table": {
        **pngs(DIGITS, ["pictures"] * 240),
        "labels.csv": "id,class\n" + "\n".join(f"{n:04},{label}" for n, label in enumerate(LABELS)),
    },
    "an archive of any of these": {"all.zip": {f"all/{n}": png for n, png in IN_FOLDERS.items()}},
    "`.mat`": {"emnist.mat": ""},
    "`.parquet`": {"own.parquet": ""},
}
GIVEN = {kind: "" if kind.startswith("a folder") else next(iter(KINDS[kind])) for kind in KINDS}
GIVEN["how the names of several such files begin"] = "emnist-letters"
SPLIT = ("`.npz`", "a folder of such files", "how the names of several such files begin", "`.mat`")
SPLIT += ("a folder of pictures in `train`, `test`, `val`", "an archive of any of these")
PACKAGES = {".mat": "scipy", ".parquet": "pyarrow", ".heic": "pillow-heif"}


class Table(dict):
    """As much of pyarrow's tables as is asked for."""

    column_names = property(list)

    def __getitem__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(to_pylist=lambda: [*super(Table, self).__getitem__(name)])


def loadmat(path: Path, simplify_cells: bool) -> dict[str, object]:
    """EMNIST in MATLAB's form, as scipy reads it."""
    flat = TURNED.reshape(240, 784)
    parts = {n: {"images": flat[p], "labels": LABELS[p]} for n, p in PARTS.items()}
    return {"__version__": "1.0", "dataset": {**parts, "mapping": np.zeros((10, 2))}}


def read_table(path: Path) -> Table:
    """A data set of Hugging Face with light pictures, of which one is narrower, from pyarrow."""
    light = [255 - DIGITS[0, :, 1:-1], *(255 - DIGITS[1:])]
    return Table(image=[{"bytes": png(image), "path": None} for image in light], label=LABELS)


INSTALLED = {
    "scipy.io": SimpleNamespace(loadmat=loadmat),
    "pyarrow.parquet": SimpleNamespace(read_table=read_table),
}


def pairs(data: DiscreteImages) -> list[tuple[bytes, str]]:
    """Images with the names of their classes, in an order that does not depend on the data's."""
    names = [data.classes[label] for label in data.labels.tolist()]
    return sorted(zip([image.numpy().tobytes() for image in data.images], names, strict=True))


class OwnDataTest(InFolder):
    def npz(self, **arrays: np.ndarray) -> Path:
        return saved(self.folder / "own.npz", arrays)

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


class TestKinds(OwnDataTest):
    def test_every_kind_in_the_docs_is_read_with_its_images_labels_classes_and_split(self):
        rows = (DOCS / "own_data.md").read_text().split("| what PATH is")[1].split("\n\n")[0]
        kinds = [line.split(" | ")[0].removeprefix("| ") for line in rows.splitlines()[2:]]
        self.assertEqual(kinds, [*KINDS, "pictures from a phone"])
        for end in (*READERS, *ARCHIVES, *TABLES, *HEIF, *FORMATS):
            self.assertIn(end, rows)
        data = DiscreteImages(torch.tensor(LEVELS[:, np.newaxis]), torch.tensor(LABELS))
        for number, (kind, files) in enumerate(KINDS.items()):
            with self.subTest(kind), mock.patch.dict("sys.modules", INSTALLED):
                own = read_own(all_saved(self.folder / f"data {number}", files) / GIVEN[kind])
                self.assertEqual(own.data.classes, tuple("0123456789"))
                self.assertEqual(pairs(own.data), pairs(data))
                self.assertNotIn("labels", str(own.notes))
                parts = [*map(pairs, own.split())]
                self.assertEqual(sorted(chain(*parts)), pairs(data))
                sizes = (200, 20, 20) if kind in SPLIT else (192, 24, 24)
                self.assertEqual(tuple(map(len, parts)), sizes)
                if kind in SPLIT:
                    self.assertEqual(own.record["published"], ["val", "test"])
                    self.assertEqual(parts[2], pairs(data.subset(torch.arange(220, 240))))

    def test_where_a_kind_needs_a_package_the_line_names_it(self):
        missing = dict.fromkeys(("scipy.io", "pyarrow.parquet", "pillow_heif"))
        for suffix, package in PACKAGES.items():
            line = f"^argument --data: .*pip install {package}$"
            with mock.patch.dict("sys.modules", missing), self.assertRaisesRegex(InputError, line):
                read_own(saved(self.folder / f"own{suffix}", ""))


class TestArrays(OwnDataTest):
    def test_grey_levels_of_any_type_and_shape_are_the_same_images(self):
        flat, fractions = DIGITS.reshape(240, 784), DIGITS / 255
        for images in (
            *(DIGITS[:, np.newaxis], DIGITS[..., np.newaxis], flat, np.stack([DIGITS] * 3, axis=3)),
            *(DIGITS.astype(np.int64), flat.astype(float), fractions, fractions.astype("f4")),
        ):
            with self.subTest(dtype=images.dtype, shape=images.shape):
                self.assert_read(self.npz(images=images), LEVELS)
        self.assert_read(self.npz(images=DIGITS > 127), 15 * (DIGITS > 127))
        self.assert_read(self.npz(images=LEVELS), LEVELS, levels=16)
        double = DIGITS.repeat(2, axis=1).repeat(2, axis=2)
        small = read_own(self.npz(images=double)).data.images[:, 0].float()
        self.assertLess((small - torch.tensor(LEVELS)).abs().mean().item(), 0.7)

    def test_labels_of_any_type_and_shape_are_the_same_classes(self):
        names = [*map(str, LABELS)]
        for labels in (
            *(LABELS, LABELS.astype(float), LABELS[:, np.newaxis], np.eye(10)[LABELS]),
            np.array(names),
        ):
            with self.subTest(dtype=labels.dtype, shape=labels.shape):
                self.assert_read(self.npz(images=DIGITS, labels=labels), LEVELS, names)
        self.assert_read(self.npz(images=DIGITS, labels=np.array(NAMES)), LEVELS, NAMES)

    def test_names_or_shapes_tell_images_from_labels(self):
        for arrays in ({"x": DIGITS, "y": LABELS}, {"arr_0": DIGITS, "arr_1": LABELS}):
            self.assert_read(self.npz(**arrays), LEVELS, [*map(str, LABELS)])
        folder = all_saved(self.folder / "two", {"digits.npy": DIGITS, "labels.npy": LABELS})
        self.assert_read(folder / "digits.npy", LEVELS, [*map(str, LABELS)])
        path = saved(self.folder / "train.csv", table(header=False))
        self.assert_read(path, LEVELS, [*map(str, LABELS)])
        self.assert_read(self.npz(images=DIGITS, boxes=np.zeros((240, 16)), classes=10), LEVELS)

    def test_labels_and_test_images_that_are_not_used_are_named(self):
        path = saved(self.folder / "train-images.idx3-ubyte", DIGITS)
        self.assertIn("no labels found", read_own(path).summary())
        all_saved(self.folder, {"other-labels.idx1-ubyte": LABELS, "holidays.txt": ""})
        self.assertIn("not used: 1 (other-labels.idx1-ubyte)", read_own(path).summary())
        saved(self.folder / "train-labels-idx1-ubyte.gz", LABELS)
        saved(self.folder / "t10k-images-idx3-ubyte", DIGITS[:20])
        said = read_own(path).summary()
        self.assertIn("; 0 18, 1 34", said)
        self.assertIn("labels.idx1-ubyte, t10k-images-idx3-ubyte): give the folder", said)
        (self.folder / "other-labels.idx1-ubyte").unlink()
        said = read_own(self.folder).summary()
        self.assertIn("192 for training, 24 for validation", said)
        self.assertIn("left out: 20 test images, which have no labels", said)

    def test_what_cannot_be_trained_on_is_refused_in_one_line(self):
        labels, pickled = np.zeros(240, np.int64), self.folder / "pickled.npy"
        np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
        for name in ("few", "parts", "parts/train", "parts/test"):
            all_saved(self.folder / name, pngs(DIGITS[:2], LABELS[:2]))
        (self.folder / "empty").mkdir()
        for line, source, how in (
            ("missing.npz: No such file", self.folder / "missing.npz", {}),
            ("images: 0, expected at least 200", {"images": DIGITS[:0]}, {}),
            ("images: 100, expected at least 200", {"images": DIGITS[:100]}, {}),
            ("no images: it has .*x int64", {"x": labels}, {}),
            ("two arrays of images, .*a.*b", {"a": DIGITS, "b": DIGITS}, {}),
            ("-1 to 1, expected 0..255", {"images": DIGITS / 127.5 - 1}, {}),
            ("0 to 510, expected 0..255", {"images": DIGITS * 2.0}, {}),
            ("nan to", {"images": np.where(DIGITS > 0, np.nan, 0)}, {}),
            (r"\[240, 28, 28, 4\], expected", {"images": np.stack([DIGITS] * 4, axis=3)}, {}),
            ("up to 15: with --levels 16", {"images": LEVELS}, {}),
            ("up to 255: with --levels 16", {"images": DIGITS}, {"levels": 16}),
            (r"int64 \[239\].* each of 240", {"images": DIGITS, "labels": labels[1:]}, {}),
            ("labels are float64", {"images": DIGITS, "labels": labels + 0.5}, {}),
            (r"int64 \[240, 2\]", {"images": DIGITS, "labels": np.ones((240, 2), int)}, {}),
            ("240 classes, expected at most 100", {"images": DIGITS, "labels": range(240)}, {}),
            ("is not an IDX file", saved(self.folder / "text.idx", "no array"), {}),
            ("image 0, .*nothing", {"images": np.full_like(DIGITS, 40)}, {"like_mnist": True}),
            ("text.npz", saved(self.folder / "text.npz", "no array"), {}),
            ("pickled.npy: Object arrays", pickled, {}),
            ("images: 2, expected at least 200", self.folder / "few", {}),
            ("no images in it", self.folder / "empty", {}),
            ("not clear which folders are classes", self.folder / "parts", {}),
        ):
            path = self.npz(**source) if isinstance(source, dict) else source
            with self.subTest(line), self.assertRaisesRegex(InputError, line) as refused:
                read_own(path, **how)
            self.assertRegex(str(refused.exception), "^argument --data: [^\n]*$")

    def test_too_little_memory_is_not_blamed_on_the_file(self):
        with mock.patch("numpy.load", side_effect=MemoryError), self.assertRaises(MemoryError):
            read_own(self.npz(images=DIGITS))


class TestPictures(OwnDataTest):
    def test_subfolders_are_classes_and_colours_transparency_and_inversion_make_no_difference(self):
        files = pngs(map(disguised, range(200)), NAMES[:200])
        order = np.argsort(NAMES[:200], kind="stable")
        folder = all_saved(self.folder / "MNIST", files)
        self.assert_read(folder, LEVELS[order], sorted(NAMES[:200]))
        for file in folder.glob("*/*"):
            file.rename(folder / file.name)
        self.assert_read(folder, LEVELS[:200])

    def test_pictures_of_any_size_and_format_are_fitted_without_distortion(self):
        square = np.zeros((84, 42), np.uint8)
        square[21:63] = 255  # white on black, in a picture twice as high as wide
        for suffix in ("png", "jpg", "bmp", "gif", "tiff", "webp", "ppm"):
            Image.fromarray(square).save(self.folder / f"0.{suffix}")
            for number in range(1, 30):
                shutil.copy(self.folder / f"0.{suffix}", self.folder / f"{number}.{suffix}")
        images = read_own(self.folder).data.images[:, 0]
        expected = torch.zeros(28, 28)
        expected[7:21, 7:21] = 15
        self.assertLess((images - expected).abs().float().mean().item(), 0.2)

    def test_files_of_systems_are_passed_over_and_others_are_left_out_and_said(self):
        hidden = (".DS_Store", "3/Thumbs.db", "a.png:Zone.Identifier", "__MACOSX/3/._1.png")
        others = dict.fromkeys((*hidden, "README", "LICENSE.md", "3/notes.txt"), "")
        folder = all_saved(self.folder / "own", pngs(DIGITS[:200], LABELS[:200]) | others)
        texts = ["not used: 3 (LICENSE.md, README, notes.txt)"]
        self.assertEqual(read_own(folder).notes, texts)
        saved(folder / "3/damaged.png", png(DIGITS[0])[:200])
        Image.new("I;16", (28, 28)).save(folder / "3/deep.png")
        own = read_own(folder)
        self.assertEqual(len(own.data), 200)
        self.assertIn("of 202 files: 2 (3/damaged.png, 3/deep.png)", own.summary())
        saved(folder / "stray.png", png(DIGITS[0]))
        with self.assertRaisesRegex(InputError, r"203 files: 3 \(stray.png, 3/damaged.png, "):
            read_own(folder)


class TestPaper(unittest.TestCase):
    def test_shadows_tables_lines_and_other_digits_do_not_keep_a_digit_from_being_read(self):
        for number, kind in PHOTOS[4:13:2]:  # all twenty are in tests.slow
            with self.subTest(number=number, kind=kind):
                grey = np.asarray(Image.fromarray(photo(number, kind)).convert("L"))
                images = torch.from_numpy(four_bit(np.stack(photographed(grey)))).unsqueeze(1)
                found = classify(load_classifier(), images)[1].argmax(dim=1).tolist()
                self.assertEqual(found, LABELS[number:][: 1 + (kind == "two")].tolist())

    def test_a_bar_apart_from_its_stroke_belongs_to_it_as_in_a_5(self):
        paper = np.full((300, 300), 230, np.uint8)
        paper[100:220, 120:135] = paper[100:112, 150:200] = 20
        (image,) = photographed(paper)
        self.assertGreater(np.ptp(np.nonzero(image > 100)[1]), 10)

    def test_nothing_is_found_on_empty_paper(self):
        for paper in (np.zeros((50, 50), np.uint8), np.full((600, 800), 240, np.uint8)):
            self.assertEqual(photographed(paper), [])
            with self.assertRaisesRegex(ValueError, "nothing"):
                mnist_form(paper)

    def test_a_digit_in_a_large_picture_comes_back_as_it_was(self):
        images, labels, formed = DIGITS[:100], LABELS[:100], []
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
        for turns in range(4):  # nearly all at one side: as near to the middle as there is room
            picture = np.zeros((400, 400), np.uint8)
            picture[20:220, 60:80] = picture[20:22, 60:260] = 200
            self.assertEqual(mnist_form(np.rot90(picture, turns)).shape, (28, 28))


class TestCommands(OwnDataTest):
    """A run on images of three classes, and everything after it."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.multiple(fmnist, load=whole, prepare=prepare))
        self.enterContext(without_pictures())
        self.run = self.folder / "logs" / "version_0"

    def train(self, **options: object) -> None:
        """A run of two steps."""
        small = {"num_filters": 2, "z_dim": 2, "epochs": 1, "batch_size": 96, "accelerator": "cpu"}
        with redirect_stdout(StringIO()):
            train_pl.train_vae(Namespace(**{**small, "log_dir": self.folder / "logs", **options}))

    def ended(self, command: object, *arguments: object) -> str:
        """What a command says; its complaint, if it ends with one."""
        code, said, complaint = run_command(command.main, *arguments)
        self.assertEqual(len(complaint.splitlines()), int(code != 0), complaint)
        return complaint or said

    def test_sampling_judging_and_resuming_know_the_images_of_the_training(self):
        own, moved = self.npz(images=DIGITS, labels=NAMES), self.folder / "moved.npz"
        self.train(data=own)
        result = json.loads((self.run / "result.json").read_text())
        record = result["trained_on"]
        self.assertEqual((record["dataset"], record["data"]), ("own.npz", str(own)))
        self.assertEqual(record["classes"], [*CLASSES])
        self.assertGreater(result["test_prior_bpd"], result["codec_bpd"]["bz2"])
        self.assertIn("it has not learned them. Train longer", of_test(result))
        output = self.folder / "out.npy"
        self.ended(sample, self.run, "--label", "letter b", "--num", 5, "--output", output)
        self.assertEqual(np.load(output).shape, (5, 28, 28))
        line = self.ended(sample, self.run, "--label", "0", "--output", output)
        self.assertIn("no class '0': one of letter $, letter a, letter b", line)
        page = ("--output", self.folder / "page.html")
        line = self.ended(explore, self.run, "--dataset", "MNIST", *page)
        self.assertIn("--dataset: classes 0, 1, 2", line)
        best = shutil.copy(find_checkpoint(self.run), self.folder / "first.ckpt")
        other = torch.load(best, weights_only=True)
        other["datamodule_hyper_parameters"]["digest"] = "of other images in a file of this name"
        torch.save(other, self.folder / "other.ckpt")
        line = self.ended(explore, self.run, self.folder / "other.ckpt", *page)
        self.assertIn("make a page of each data set", line)
        self.assertEqual(data_for(best)[:2], ("own.npz", "own.npz"))

        own.rename(moved)
        with self.assertRaisesRegex(InputError, "the model was trained on it"):
            data_for(best)
        self.assertEqual(data_for(best, data=moved)[:2], ("own.npz", "own.npz"))
        self.train(resume=self.run, epochs=2, data=moved)

        self.npz(images=DIGITS[1:], labels=NAMES[1:]).rename(moved)
        self.assertEqual(data_for(best, data=moved)[:2], ("moved.npz, other images", "own.npz"))
        with self.assertRaisesRegex(InputError, "are not those that .* began with .moved"):
            self.train(resume=self.run, epochs=3)
        with self.assertRaisesRegex(InputError, "have changed"):
            data_for(self.run / "checkpoints" / "last.ckpt")  # knows where the images are now

    def test_the_file_itself_shows_what_is_read(self):
        output, picture = self.folder / "read.npy", self.folder / "read.png"
        source = saved(
            self.folder / "MNIST" / "own.npz", {"images": DIGITS, "labels": NAMES}
        ).parent
        # An official name would call the official classifier and codec in.
        self.assertEqual(read_own(source).record["dataset"], "own MNIST")
        said = self.ended(own_data, source, "--output", output)
        self.assertTrue(np.array_equal(np.load(output), LEVELS))
        self.assertIn("240 images; letter $ 80, letter a 80, letter b 80", said)
        self.ended(own_data, source, "--output", picture)
        with Image.open(picture) as shown:
            self.assertEqual(shown.size, (20 * 29 + 1, 12 * 29 + 1))
        self.assertIn("there already", self.ended(own_data, source, "--output", picture))
        self.assertIn(".png or .npy", self.ended(own_data, source, "--output", "x.txt"))

    def test_models_of_other_data_modules_have_classes_by_their_number(self):
        for record in (None, {"batch_size": 4}, {"dataset": "photos", "classes": 3}, [1]):
            module = {"datamodule_hyper_parameters": record}
            checkpoint = save_model(train_pl.VAE(2, 2), self.folder / "model.ckpt", **module)
            self.assertEqual(class_number(checkpoint, 3, "2"), 2)
            with self.assertRaisesRegex(InputError, "no class '7': one of 0, 1, 2"):
                class_number(checkpoint, 3, "7")

    def test_a_model_of_mnist_judges_other_images(self):
        path = self.npz(images=DIGITS, labels=np.arange(240) // 20)  # 12 classes, it has ten
        mnist = {"datamodule_hyper_parameters": {"dataset": "MNIST"}}
        model = save_model(random_model(), self.folder / "small.ckpt", **mnist)
        few = ("--iwae_samples", 1, "--output", self.folder / "judged", "--limit", 20)
        with undrawn():
            table = self.ended(evaluate, model, *few, "--data", path)
        self.assertIn("20 images, own.npz test", table)
        self.assertIn("other images, those of MNIST", table)
        self.assertNotIn("classifier", table)

    def test_options_that_do_not_go_together_are_refused(self):
        for options, line in (
            ({"like_mnist": True}, "--like_mnist: it is for --data"),
            ({"levels": 16}, "--levels: it is for --data"),
            ({"data": "own.npz", "dataset": "KMNIST"}, "not both"),
        ):
            with self.assertRaisesRegex(InputError, line):
                self.train(**options)
        with self.assertRaisesRegex(InputError, "not both"):
            data_for(train_pl.PRETRAINED, "MNIST", "own.npz")
        self.assertFalse((self.folder / "logs").exists())

    def test_a_model_has_as_many_classes_as_the_images_and_without_labels_one(self):
        for labels, wanted in (({"labels": NAMES}, 3), ({}, 1)):
            with self.assertRaisesRegex(InputError, rf"VAE\(num_classes={wanted}"):
                how = Namespace(data=self.npz(images=DIGITS, **labels), log_dir=self.folder)
                with redirect_stdout(StringIO()):
                    train_pl.train_vae(how, model=train_pl.VAE(2, 2))
        record = read_own(self.folder / "own.npz").record
        model = save_model(
            random_model(), self.folder / "x.ckpt", datamodule_hyper_parameters=record
        )
        with self.assertRaisesRegex(InputError, "trained without any"):
            class_number(model, 1, "0")
