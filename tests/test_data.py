"""The data: discretisation, split, loaders, and files that are missing or altered."""

import os
import shutil
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from unittest import mock
from urllib.error import URLError

import torch
from tiny import InFolder
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST

import fmnist
from boundary.command_line import InputError
from fmnist import DATA_DIR, DiscreteImages, MNISTDataModule, discretize, load, mnist, prepare

no_network = mock.patch("urllib.request.urlopen", side_effect=URLError("no network"))


@contextmanager
def mirror() -> Iterator[None]:
    """A web server on this machine, from which torchvision gets MNIST."""

    class Archives(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=DATA_DIR / "MNIST" / "raw")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Archives) as server:
        Thread(target=server.serve_forever).start()
        address = [f"http://127.0.0.1:{server.server_port}/"]
        with (
            mock.patch.object(MNIST, "mirrors", address),
            mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1"}),
        ):
            yield
        server.shutdown()


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


class TestLoaders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.train, cls.val, cls.test = mnist()
        with tempfile.TemporaryDirectory() as folder:  # torchvision's own reader, to compare with
            shutil.copytree(DATA_DIR / "MNIST", Path(folder, "MNIST"))
            cls.source = [MNIST(folder, train=flag, download=True) for flag in (True, False)]

    def test_the_splits_have_54000_6000_and_10000_images(self):
        sizes = [len(loader.dataset) for loader in (self.train, self.val, self.test)]
        self.assertEqual(sizes, [54_000, 6_000, 10_000])

    def test_training_and_validation_images_are_the_training_set_without_overlap(self):
        order = torch.randperm(60_000, generator=torch.Generator().manual_seed(42))
        expected = discretize(self.source[0].data / 255).to(torch.uint8).unsqueeze(1)[order]
        parts = [self.train.dataset.images, self.val.dataset.images]
        self.assertTrue(torch.equal(torch.cat(parts), expected))
        parts = [self.train.dataset.labels, self.val.dataset.labels]
        self.assertTrue(torch.equal(torch.cat(parts), self.source[0].targets[order]))

    def test_the_test_set_is_the_official_one_in_its_order(self):
        expected = discretize(self.source[1].data / 255).to(torch.uint8).unsqueeze(1)
        self.assertTrue(torch.equal(self.test.dataset.images, expected))
        self.assertTrue(torch.equal(self.test.dataset.labels, self.source[1].targets))

    def test_batches_are_long_images_and_labels(self):
        for loader in (self.train, self.val, self.test):
            imgs, labels = next(iter(loader))
            self.assertEqual((imgs.shape, imgs.dtype), ((128, 1, 28, 28), torch.long))
            self.assertEqual((labels.shape, labels.dtype), ((128,), torch.long))
            self.assertTrue(imgs.min() == 0 and imgs.max() == 15)

    def test_every_image_comes_once_per_pass(self):
        for loader in (self.train, self.val, self.test):
            batches = [imgs.to(torch.uint8) for imgs, _ in loader]
            seen = Counter(image.numpy().tobytes() for image in torch.cat(batches))
            images = Counter(image.numpy().tobytes() for image in loader.dataset.images)
            self.assertEqual(seen, images)

    def test_only_the_training_loader_shuffles_and_anew_every_pass(self):
        first, second = (next(iter(self.train))[1] for _ in range(2))
        self.assertFalse(torch.equal(first, second))
        for loader in (self.val, self.test):
            self.assertTrue(torch.equal(next(iter(loader))[1], loader.dataset.labels[:128]))

    def test_a_pass_leaves_the_global_random_stream_alone(self):
        before = torch.get_rng_state()
        for loader in (self.train, self.val):
            next(iter(loader))
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_a_batch_is_fetched_at_once_never_image_by_image(self):
        with mock.patch.object(DiscreteImages, "__getitem__", side_effect=AssertionError):
            next(iter(self.train))

    def test_torchs_own_loader_and_subset_give_the_same_images(self):
        data = self.test.dataset
        part = Subset(data, range(5, 400))
        for loader in (DataLoader(part, batch_size=100), fmnist._loader(part, 0, batch_size=100)):
            batches = list(loader)
            self.assertEqual([len(labels) for _, labels in batches], [100, 100, 100, 95])
            imgs = torch.cat([imgs for imgs, _ in batches])
            self.assertTrue(torch.equal(imgs, data.images[5:400].long()))
            labels = torch.cat([labels for _, labels in batches])
            self.assertTrue(torch.equal(labels, data.labels[5:400]))
        imgs, labels = next(iter(DataLoader(data, batch_size=3, num_workers=1)))
        self.assertEqual((imgs.shape, imgs.dtype), ((3, 1, 28, 28), torch.long))
        self.assertEqual(labels.tolist(), [7, 2, 1])

    def test_worker_processes_give_the_same_batches(self):
        # Small on purpose: what is handed to a process is the data set itself.
        data = self.test.dataset.subset(torch.arange(100))
        loader = fmnist._loader(data, num_workers=1, batch_size=30)
        batches = torch.cat([imgs for imgs, _ in loader])
        self.assertTrue(torch.equal(batches, data.images.long()))


class TestDataModule(unittest.TestCase):
    def share(self, rank: int, world_size: int, seed: int = 42) -> MNISTDataModule:
        data = MNISTDataModule(batch_size=100, seed=seed)
        numbers = torch.arange(1001)
        digits = torch.stack([numbers // 256, numbers // 16 % 16, numbers % 16], dim=1)
        images = digits.to(torch.uint8).view(-1, 1, 1, 3)
        data.train = data.val = data.test = DiscreteImages(images, numbers)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=0)
        return data

    def seen(self, loader) -> list[int]:
        """The numbers in the order of the batches; each is image and label at once."""
        for imgs, labels in loader:
            digits = imgs.flatten(1) * torch.tensor([256, 16, 1])
            self.assertEqual(digits.sum(dim=1).tolist(), labels.tolist())
        return [int(label) for _, labels in loader for label in labels]

    def test_processes_train_on_separate_shares_of_one_order(self):
        shares = [self.seen(self.share(rank, 2).train_dataloader()) for rank in range(2)]
        self.assertEqual([len(share) for share in shares], [500, 500])
        self.assertEqual(len(set(shares[0] + shares[1])), 1000)

    def test_the_order_derives_from_seed_and_epoch(self):
        loaders = [self.share(0, 1).train_dataloader() for _ in range(2)]
        self.assertEqual(*(self.seen(loader) for loader in loaders))
        first = self.seen(loaders[0])
        loaders[0].sampler.set_epoch(1)
        self.assertNotEqual(self.seen(loaders[0]), first)

    def test_no_two_seeds_share_an_order_not_even_of_other_epochs(self):
        orders = set()
        for seed in range(4):
            sampler = self.share(0, 1, seed).train_dataloader().sampler
            for epoch in range(4):
                sampler.set_epoch(epoch)
                order = list(sampler)
                self.assertEqual(sorted(order), list(range(1001)))
                orders.add(tuple(order))
        self.assertEqual(len(orders), 16)

    def test_an_epoch_that_is_set_after_the_iterator_was_made_decides_the_order(self):
        # As Lightning does when it resumes a run.
        orders = []
        for num_workers in (0, 1):
            data = self.share(0, 1)
            data.num_workers = num_workers
            loader = data.train_dataloader()
            batches = iter(loader)
            loader.sampler.set_epoch(3)
            orders.append(self.seen(list(batches)))
        self.assertEqual(*orders)
        loader = self.share(0, 1).train_dataloader()
        self.assertNotEqual(self.seen(loader), orders[0])
        loader.sampler.set_epoch(3)
        self.assertEqual(self.seen(loader), orders[0])

    def test_processes_evaluate_every_image_once(self):
        for name in ("val_dataloader", "test_dataloader"):
            loaders = [getattr(self.share(rank, 3), name)() for rank in range(3)]
            seen = [label for loader in loaders for label in self.seen(loader)]
            self.assertEqual(sorted(seen), list(range(1001)))


class TestFiles(InFolder):
    def setUp(self):
        super().setUp()
        self.root = self.folder
        self.raw = self.root / "MNIST" / "raw"
        self.raw.mkdir(parents=True)
        for archive in (DATA_DIR / "MNIST" / "raw").glob("*.gz"):
            shutil.copy(archive, self.raw)
        self.archive = self.raw / "t10k-labels-idx1-ubyte.gz"

    def files(self) -> dict[str, bytes]:
        return {
            str(p.relative_to(self.root)): p.read_bytes()
            for p in self.root.rglob("*")
            if p.is_file()
        }

    def test_the_archives_are_read_as_they_are_without_a_network_and_nothing_is_written(self):
        before = self.files()
        with no_network:
            prepare(self.root)
        self.assertEqual(len(load(self.root, train=False)), 10_000)
        self.assertEqual(self.files(), before)
        self.assertEqual(len(before), 4)

    def test_extracted_copies_beside_the_archives_are_ignored(self):
        self.archive.with_suffix("").write_bytes(b"of an older version, or altered")
        with no_network:
            prepare(self.root)
        digits = load(self.root, train=False).labels[:5]
        self.assertEqual(digits.tolist(), [7, 2, 1, 0, 4])

    def test_altered_and_missing_archives_are_downloaded_anew_and_the_others_left_alone(self):
        whole = self.files()
        self.archive.write_bytes(self.archive.read_bytes()[:-1] + b"x")
        (self.raw / "t10k-images-idx3-ubyte.gz").unlink()
        untouched = self.raw / "train-images-idx3-ubyte.gz"
        written = untouched.stat().st_mtime_ns
        with mirror(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            prepare(self.root)
        self.assertEqual(self.files(), whole)
        self.assertEqual(untouched.stat().st_mtime_ns, written)
        self.assertEqual([p.name for p in self.root.rglob("preparing*")], [])

    def test_an_altered_archive_without_network_is_named_and_nothing_changes(self):
        whole = self.archive.read_bytes()
        for altered in (whole[:100], whole[:-1] + b"x", b""):
            self.archive.write_bytes(altered)
            before = self.files()
            with no_network, self.assertRaisesRegex(InputError, f"{self.archive.name} is altered"):
                prepare(self.root)
            self.assertEqual(self.files(), before)

    def test_a_missing_file_without_network_is_named_and_no_folder_is_made(self):
        nowhere = self.root / "nowhere"
        with no_network, self.assertRaisesRegex(InputError, "train-images.*missing.*--data_dir"):
            prepare(nowhere)
        self.assertFalse(nowhere.exists())
        self.archive.unlink()
        with self.assertRaisesRegex(InputError, f"{self.archive.name} is missing"):
            prepare(self.root, download=False)

    def test_a_folder_that_cannot_be_read_or_made_is_named(self):
        for root in (self.root / ("x" * 300), self.archive / "below_a_file"):
            with no_network, self.assertRaisesRegex(InputError, "--data_dir"):
                prepare(root)

    def test_values_of_the_data_module_that_make_no_sense_are_refused(self):
        for wrong in ({"batch_size": 0}, {"num_workers": -2}):
            with self.assertRaisesRegex(ValueError, next(iter(wrong))):
                MNISTDataModule(**wrong)

    def test_the_other_datasets_are_looked_for_in_their_own_folders(self):
        for name in ("FashionMNIST", "KMNIST"):
            with no_network, self.assertRaisesRegex(InputError, f"{name}.raw.*missing"):
                prepare(self.root, name)

    def test_an_unknown_dataset_is_refused_with_the_known_ones(self):
        with self.assertRaisesRegex(ValueError, "EMNIST.*MNIST, FashionMNIST, KMNIST"):
            prepare(self.root, "EMNIST")
