"""The data: discretisation, split, loaders, and files that are missing or altered."""

import gzip
import itertools
import shutil
import struct
import unittest
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from fractions import Fraction
from io import BytesIO, StringIO
from pathlib import Path
from unittest import mock
from urllib.error import URLError
from urllib.request import Request

import pytorch_lightning as pl
import torch
from tiny import InFolder, own_trainer, whole
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

import fmnist
from fmnist import DATA_DIR, DiscreteImages, MNISTDataModule, discretize, load, mnist, prepare
from inputs.command_line import InputError

OFFICIAL = DATA_DIR / "MNIST" / "raw"
no_network = mock.patch("urllib.request.urlopen", side_effect=URLError("no network"))


@contextmanager
def mirror() -> Iterator[None]:
    """A network that has the official archives."""

    def answer(request: Request) -> BytesIO:
        found = BytesIO((OFFICIAL / Path(request.full_url).name).read_bytes())
        found.url, found.length = request.full_url, None
        return found

    with mock.patch("urllib.request.urlopen", answer), redirect_stderr(StringIO()):
        yield


def numbered(count: int) -> DiscreteImages:
    """Images of three pixels that hold the number which is their label, so that both are known."""
    numbers = torch.arange(count)
    digits = torch.stack([numbers // 256, numbers // 16 % 16, numbers % 16], dim=1)
    return DiscreteImages(digits.to(torch.uint8).view(-1, 1, 1, 3), numbers)


def numbers_in(batches: DataLoader | list) -> list[int]:
    """The numbers of `numbered` images in the order of the batches."""
    seen = []
    for imgs, labels in batches:
        digits = imgs.flatten(1) * torch.tensor([256, 16, 1])
        assert digits.sum(dim=1).tolist() == labels.tolist()
        seen += labels.tolist()
    return seen


class TestDiscretize(unittest.TestCase):
    def test_all_256_grey_levels_go_to_the_nearest_sixteenth(self):
        # Worked out in fractions; 255 is odd, so no level lies halfway between two.
        expected = [min(round(Fraction(grey, 255) * 16), 15) for grey in range(256)]
        levels = discretize(torch.arange(256) / 255)
        self.assertEqual(levels.tolist(), expected)
        self.assertEqual(levels.dtype, torch.long)

    def test_any_shape_and_number_of_values(self):
        images = torch.rand(2, 3, 5)
        self.assertEqual(discretize(images).shape, images.shape)
        self.assertEqual(discretize(torch.tensor(1.0), num_values=4).item(), 3)
        self.assertEqual(discretize(torch.tensor([0.0, 0.24, 0.26, 1.0]), 2).tolist(), [0, 0, 1, 1])

    def test_images_that_are_not_between_zero_and_one_are_refused(self):
        for images in (torch.tensor([0.0, 255.0]), torch.tensor([-0.1]), torch.tensor([torch.nan])):
            with self.assertRaisesRegex(ValueError, r"\[0, 1\]"):
                discretize(images)
        with self.assertRaisesRegex(TypeError, "uint8"):
            discretize(torch.zeros(3, dtype=torch.uint8))


class TestLoaders(InFolder):
    @classmethod
    def setUpClass(cls):
        with mock.patch.object(fmnist, "load", whole):
            cls.train, cls.val, cls.test = cls.loaders = mnist()

    def test_the_parts_are_the_shuffled_training_set_and_the_test_set_without_overlap(self):
        order = torch.randperm(60_000, generator=torch.Generator().manual_seed(42))
        for loader, positions, train in (
            (self.train, order[:54_000], True),
            (self.val, order[54_000:], True),
            (self.test, torch.arange(10_000), False),
        ):
            data, source = loader.dataset, whole(train=train)
            self.assertTrue(torch.equal(data.images, source.images[positions]))
            self.assertTrue(torch.equal(data.labels, source.labels[positions]))

    def test_images_and_labels_are_those_that_torchvision_reads_in_sixteen_levels(self):
        data = self.test.dataset
        for kind, found in (("images-idx3", data.images), ("labels-idx1", data.labels)):
            file = self.folder / kind
            file.write_bytes(gzip.decompress((OFFICIAL / f"t10k-{kind}-ubyte.gz").read_bytes()))
            source = read_sn3_pascalvincent_tensor(str(file))
            source = discretize(source[:500] / 255).unsqueeze(1) if "im" in kind else source[:500]
            self.assertTrue(torch.equal(found[:500].long(), source.long()))

    def test_batches_are_long_and_only_the_training_loader_shuffles_anew_every_pass(self):
        for loader in self.loaders:
            imgs, labels = next(iter(loader))
            self.assertEqual((imgs.shape, imgs.dtype), ((128, 1, 28, 28), torch.long))
            self.assertEqual((labels.shape, labels.dtype), ((128,), torch.long))
            self.assertTrue(imgs.min() == 0 and imgs.max() == 15)
            again = next(iter(loader))[1]
            in_order = torch.equal(labels, loader.dataset.labels[:128])
            self.assertEqual([torch.equal(again, labels), in_order], [loader is not self.train] * 2)

    def test_every_image_comes_once_per_pass_of_any_loader(self):
        data = numbered(500)
        part = Subset(data, range(5, 400))
        for loader, numbers in (
            (fmnist.MemoryLoader(data, 100), range(500)),
            (fmnist.MemoryLoader(data, 100, shuffle=True), range(500)),
            (fmnist.MemoryLoader(part, 100), range(5, 400)),
            (DataLoader(data, 100), range(500)),  # torch's own
            (DataLoader(part, 100), range(5, 400)),
        ):
            for _ in range(2):
                self.assertEqual(sorted(numbers_in(loader)), [*numbers])
            self.assertEqual(len(loader), len([*loader]))

    def test_a_pass_leaves_the_global_random_stream_alone(self):
        before = torch.get_rng_state()
        for loader in (self.train, self.val):
            next(iter(loader))
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_a_batch_is_fetched_at_once_never_image_by_image(self):
        fetch = DiscreteImages.__getitem__
        how = {"autospec": True, "side_effect": fetch}
        with mock.patch.object(DiscreteImages, "__getitem__", **how) as f:
            list(itertools.islice(self.train, 3))
        self.assertEqual([len(call.args[1]) for call in f.call_args_list], [128] * 3)


class TestDataModule(unittest.TestCase):
    def loader(self, **options: int) -> DataLoader:
        data = MNISTDataModule(batch_size=100, **options)
        data.train = numbered(1001)
        return data.train_dataloader()

    def test_lightnings_own_sampler_of_overfit_batches_finds_its_images(self):
        seen = []

        class Recorder(pl.LightningModule):
            def training_step(self, batch, batch_idx):
                seen.extend(numbers_in([batch]))

            def configure_optimizers(self):
                return None

        data = MNISTDataModule(batch_size=10)
        data.train = data.val = data.test = numbered(101)
        with warnings.catch_warnings(action="ignore"):  # that nothing is learned
            own_trainer(max_epochs=1, overfit_batches=2).fit(Recorder(), datamodule=data)
        self.assertEqual(seen, [*range(20)])

    def test_the_archives_are_checked_once(self):
        data = MNISTDataModule()
        with mock.patch.object(fmnist, "prepare") as check:
            data.prepare_data()
            data.prepare_data()
        check.assert_called_once_with(DATA_DIR, "MNIST")

    def test_no_two_seeds_share_an_order_not_even_of_other_epochs(self):
        orders = set()
        for seed in range(4):
            loaders = [self.loader(seed=seed) for _ in range(2)]
            for epoch in range(4):
                for loader in loaders:
                    loader.sampler.set_epoch(epoch)
                order, again = map(numbers_in, loaders)
                self.assertEqual(order, again)
                self.assertEqual(sorted(order), [*range(1001)])
                orders.add(tuple(order))
        self.assertEqual(len(orders), 16)

    def test_an_epoch_that_is_set_after_the_iterator_was_made_decides_the_order(self):
        # As Lightning does when it resumes a run.
        orders = []
        for num_workers in (0, 1):
            loader = self.loader(num_workers=num_workers)
            batches = iter(loader)
            loader.sampler.set_epoch(3)
            orders.append(numbers_in(list(batches)))
        self.assertEqual(*orders)
        loader = self.loader()
        self.assertNotEqual(numbers_in(loader), orders[0])
        loader.sampler.set_epoch(3)
        self.assertEqual(numbers_in(loader), orders[0])


class TestFiles(InFolder):
    def setUp(self):
        super().setUp()
        self.root, self.raw = self.folder, self.folder / "MNIST" / "raw"
        shutil.copytree(OFFICIAL, self.raw)
        self.archive = self.raw / "t10k-labels-idx1-ubyte.gz"

    def files(self) -> dict[str, tuple[bytes, int]]:
        """What every file contains, and when it was written."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    def test_the_archives_are_read_as_they_are_without_a_network_and_nothing_is_written(self):
        self.archive.with_suffix("").write_bytes(b"extracted by an older version, or altered")
        before = self.files()
        with no_network:
            prepare(self.root)
        self.assertEqual(load(self.root, train=False).labels[:5].tolist(), [7, 2, 1, 0, 4])
        self.assertEqual(self.files(), before)

    def test_files_that_were_unpacked_by_hand_will_do(self):
        expected = load(self.root, train=False)
        for archive in [*self.raw.glob("t10k*")]:
            name = archive.stem.replace("-idx", ".idx") if "images" in archive.name else ""
            (self.raw / (name or archive.stem)).write_bytes(gzip.decompress(archive.read_bytes()))
            archive.unlink()
        with no_network:
            prepare(self.root)
        self.assertTrue(torch.equal(load(self.root, train=False).images, expected.images))

    def test_missing_archives_are_downloaded_and_the_others_left_alone(self):
        whole = self.files()
        missing = (self.archive, self.raw / "t10k-images-idx3-ubyte.gz")
        for archive in missing:
            archive.unlink()
        with mirror():
            prepare(self.root)
        now = self.files()
        self.assertEqual(now.keys(), whole.keys())
        for name, (content, written) in whole.items():
            self.assertEqual(now[name][0], content)
            self.assertEqual(now[name][1] == written, Path(name) not in missing)

    def test_a_download_that_is_not_the_official_file_leaves_nothing(self):
        self.archive.unlink()
        before = self.files()
        wrong = [(name, "0" * 32 if "labels" in name else md5) for name, md5 in MNIST.resources]
        refused = self.assertRaisesRegex(InputError, f"{self.archive.name}.*corrupted")
        with mock.patch.object(MNIST, "resources", wrong[-1:]), mirror(), refused:
            prepare(self.root)
        self.assertEqual(self.files(), before)

    def test_a_file_that_is_not_the_official_one_is_named_and_never_replaced(self):
        whole = self.archive.read_bytes()
        for other in (whole[:100], whole[:-1] + b"x", b"", b"images of somebody's own"):
            self.archive.write_bytes(other)
            before = self.files()
            with mirror(), self.assertRaisesRegex(InputError, f"{self.archive.name} is not the"):
                prepare(self.root)
            self.assertEqual(self.files(), before)

    def test_what_is_missing_without_a_network_is_named_and_no_folder_is_made(self):
        nowhere, named = self.root / "nowhere", "nowhere.{}.raw.train-images.*missing.*--data_dir"
        for root, name, line in (
            *((nowhere, name, named.format(name)) for name in fmnist.DATASETS),
            (self.root / ("x" * 300), "MNIST", "--data_dir"),
            (self.archive / "below_a_file", "MNIST", "--data_dir"),
        ):
            with no_network, self.assertRaisesRegex(InputError, line):
                prepare(root, name)
        self.assertFalse(nowhere.exists())
        self.archive.unlink()
        with self.assertRaisesRegex(InputError, f"{self.archive.name} is missing"):
            prepare(self.root, download=False)
        with self.assertRaisesRegex(ValueError, "EMNIST.*MNIST, FashionMNIST, KMNIST"):
            prepare(self.root, "EMNIST")

    def test_archives_that_are_not_whole_are_refused_in_one_line(self):
        packed = self.archive.read_bytes()
        labels = gzip.decompress(packed)
        small = struct.pack(">4B3I", 0, 0, 8, 3, 10_000, 2, 2) + bytes(40_000)
        for kind, content, line in (
            ("images-idx3", small, r"images are \[10000, 2, 2\]"),
            ("labels-idx1", labels[:7] + b"\x0f" + labels[8:-1], r"labels?"),
            ("labels-idx1", labels[:100] + b"\x0a" + labels[101:], "label is not in 0..9"),
            ("labels-idx1", packed[:-100], "ended"),
            ("labels-idx1", packed[:50] + b"altered" + packed[57:], "decompressing"),
        ):
            (self.raw / f"t10k-{kind}-ubyte.gz").write_bytes(content)
            with self.subTest(line), self.assertRaises(InputError) as refused:
                load(self.root, train=False)
            expected = f"^cannot read the t10k archives in [^\n]*{line}[^\n]*$"
            self.assertRegex(str(refused.exception), expected)
            shutil.copy(OFFICIAL / f"t10k-{kind}-ubyte.gz", self.raw)
