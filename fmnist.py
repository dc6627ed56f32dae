"""MNIST with 16 grey levels, or two: the data that the model is trained on.

Torchvision downloads the archives; here they become grey levels, uint8 in memory, and batches.
"""

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url

from inputs.command_line import InputError, nearest_folder, one_line
from inputs.files import read_idx

DATA_DIR = Path(__file__).resolve().parent / "data"  # holds the four official MNIST files
DATASETS = ("MNIST", "FashionMNIST", "KMNIST")  # torchvision classes that share one file format
SIDE = 28  # pixels of an image, each way
NUM_TRAIN, NUM_VAL = 54_000, 6_000
DIGITS = tuple("0123456789")
SPLIT_SEED = 42  # fixed, so that every run is judged on the same validation images
BINARY_SEED = 42  # fixed, so that every run is judged on the same two levels of these images


def discretize(images: Tensor, num_values: int = 16) -> Tensor:
    """Grey levels in [0, 1] to integer levels: min(round(num_values * images), num_values - 1).

    Args:
        images: float, any shape, values in [0, 1].
        num_values: number of levels; 16 makes 4-bit images.
    Returns:
        long, same shape, values in 0..num_values-1.
    Raises:
        TypeError, ValueError: images are not floating point, a value lies outside [0, 1] or is not
            a number, or num_values is below 1.
    """
    if num_values < 1:
        raise ValueError(f"discretize expects num_values of at least 1, got {num_values}")
    if not images.is_floating_point():
        raise TypeError(f"discretize expects float images in [0, 1], got {images.dtype}")
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"discretize expects values in [0, 1], got {low:g} to {high:g}")
    return (images * num_values).round().long().clamp(max=num_values - 1)


def four_bit(pixels: np.ndarray) -> np.ndarray:
    """Pixels uint8 in 0..255 to 0..15: `discretize`, from a table of the 256 possible results."""
    return discretize(torch.arange(256) / 255).to(torch.uint8).numpy()[pixels]


def binarize(grey: Tensor, noise: torch.Generator) -> Tensor:
    """Two levels, each pixel drawn on its own: 1 with probability grey / 255.

    Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks". Drawn anew
    in every epoch, as by Burda et al. 2016, it is "dynamically binarised" MNIST.

    Args:
        grey: whole numbers 0..255, any shape; the result has the same shape, dtype and device.
        noise: on the CPU, so that the draws are the same on any device.
    """
    below = torch.randint(255, grey.shape, generator=noise, dtype=torch.uint8)
    return (below.to(grey.device) < grey).to(grey.dtype)


class DiscreteImages(Dataset):
    """Images of integer grey levels with their labels, fetched a batch at a time.

    Args:
        images: uint8 [N, 1, 28, 28], values 0..num_levels-1; as bytes they stay in the cache.
        labels: long [N].
        classes: the names of the labels 0, 1, ...; none for images without labels, which have 0.
        grey: of images of two levels, those from which training draws them, see `binarize`.
    Raises:
        TypeError, ValueError: another dtype, shape or range. No training step checks it again.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: Sequence[str] = DIGITS,
        num_levels: int = 16,
        grey: "GreyImages | None" = None,
    ):
        found = f"got {images.dtype} {[*images.shape]} and {labels.dtype} {[*labels.shape]}"
        if (images.dtype, labels.dtype) != (torch.uint8, torch.long):
            raise TypeError(f"expected uint8 images and long labels, {found}")
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(f"expected images [N, 1, H, W] and labels [N], {found}")
        if len(images) and (highest := int(images.max())) >= num_levels:
            expected = f"expected grey levels 0..{num_levels - 1}"
            raise ValueError(f"{expected}, got {highest}: see discretize")
        self.images, self.labels, self.classes = images, labels, tuple(classes)
        self.num_levels, self.grey = num_levels, grey

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        """An image long [1, 28, 28] and its label or, of a list of positions, the whole batch."""
        if not isinstance(index, list):
            return self.images[index].long(), self.labels[index]
        where = torch.as_tensor(index)
        if self.images.is_cuda:  # from pinned memory the copy does not make the host wait
            where = where.pin_memory().to(self.images.device, non_blocking=True)
        # index_select copies whole images, where indexing in brackets goes pixel by pixel.
        return self.images.index_select(0, where).long(), self.labels.index_select(0, where)

    def subset(self, index: Tensor) -> "DiscreteImages":
        """The images at these positions, long [M], as a set of their own."""
        index, grey = index.to(self.images.device), self.grey and self.grey.subset(index)
        return type(self)(
            self.images[index], self.labels[index], self.classes, self.num_levels, grey
        )

    def first(self, num: int | None) -> "DiscreteImages":
        """The first images, or all if there are no more or num is None."""
        return self.subset(torch.arange(len(self))[:num])

    def to(self, device: torch.device) -> "DiscreteImages":
        grey = self.grey and self.grey.to(device)
        images, labels = self.images.to(device), self.labels.to(device)
        return type(self)(images, labels, self.classes, self.num_levels, grey)


class GreyImages(DiscreteImages):
    """Images of 256 levels, from which loaders draw two levels in every pass: `binarize`."""


def as_bits(
    pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str], bits: int
) -> DiscreteImages:
    """Images in 16 levels or, with 1 bit, in two. Pixels are uint8 [N, 28, 28], labels int64 [N].

    The two levels are drawn once, by a fixed seed; only training draws them again.
    """
    labels = torch.from_numpy(labels)
    if bits == 4:
        return DiscreteImages(torch.from_numpy(four_bit(pixels)).unsqueeze(1), labels, classes)
    grey = GreyImages(torch.tensor(pixels).unsqueeze(1), labels, classes, num_levels=256)
    levels = binarize(grey.images, torch.Generator().manual_seed(BINARY_SEED))
    return DiscreteImages(levels, labels, classes, num_levels=2, grey=grey)


def prepare(root: str | Path = DATA_DIR, dataset: str = "MNIST", download: bool = True) -> None:
    """Makes sure that the four archives in `<root>/<dataset>/raw` are the official ones.

    Missing ones are downloaded. A file that is there is never replaced; unpacked files will do.

    Raises:
        InputError: an archive is missing and cannot be downloaded, or is another file.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}, choose one of {', '.join(DATASETS)}")
    official, folder = getattr(datasets, dataset), Path(root, dataset, "raw")
    for name, md5 in official.resources:
        path = folder / name
        try:
            if raw_file(folder, name) != path or check_integrity(path, md5):
                continue
            if path.exists():
                raise InputError(
                    f"{path} is not the official file of {dataset} and is left as it is: move it "
                    "away to have the official one downloaded; images of your own are for --data"
                )
            if not download:
                raise OSError("not allowed")
            # It is whole before it is put into place, whatever may interrupt the download.
            beside = nearest_folder(folder)
            with tempfile.TemporaryDirectory(dir=beside, prefix="preparing-") as new:
                download_url(f"{official.mirrors[0]}{name}", new, name, md5)
                folder.mkdir(parents=True, exist_ok=True)
                Path(new, name).rename(path)
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: torchvision's own
            raise InputError(
                f"{path} is missing, and to download it failed ({one_line(error)}): connect to the "
                "network, put the file there (also unpacked) or choose another --data_dir"
            ) from error


def raw_file(folder: Path, name: str) -> Path:
    """The path of an official archive or, if only that is there, of the unpacked file."""
    plain = name.removesuffix(".gz")
    names = name, plain, plain.replace("-idx", ".idx")  # the last one is by 7-zip
    return next((folder / each for each in names if (folder / each).exists()), folder / name)


def load(
    root: str | Path = DATA_DIR, dataset: str = "MNIST", train: bool = True, bits: int = 4
) -> DiscreteImages:
    """The whole training set (60,000) or test set (10,000), see `as_bits`; call `prepare` before.

    Raises:
        InputError: an archive cannot be read.
    """
    folder, part = Path(root, dataset, "raw"), "train" if train else "t10k"
    try:
        images = read_idx(raw_file(folder, f"{part}-images-idx3-ubyte.gz"))
        labels = read_idx(raw_file(folder, f"{part}-labels-idx1-ubyte.gz")).astype(np.int64)
        if labels.max(initial=0) > 9:
            raise ValueError("a label is not in 0..9")
        if images.shape != (60_000 if train else 10_000, SIDE, SIDE):
            raise ValueError(f"the images are {list(images.shape)}")
        return as_bits(images, labels, DIGITS, bits)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise InputError(
            f"cannot read the {part} archives in {folder} ({one_line(error)}): restore them, or "
            "remove them to have them downloaded"
        ) from error


def split(data: DiscreteImages) -> tuple[DiscreteImages, DiscreteImages]:
    """54,000 images for training and 6,000 for validation."""
    train, val = split_positions(NUM_TRAIN, NUM_VAL)
    return data.subset(train), data.subset(val)


def split_positions(*sizes: int) -> tuple[Tensor, ...]:
    """Which images are in each part: long [size] each, the same in every run."""
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order.split(sizes)


def stream(key: int, *numbers: int) -> torch.Generator:
    """Random numbers from a hash of the key and the numbers."""
    # Without a key it would be the hash of `SeedEpochs`.
    entropy = np.random.SeedSequence(numbers, spawn_key=(key,))
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


class EpochOrder(DistributedSampler):
    """Each process's share of an epoch's order, which comes from a hash of (seed, epoch).

    Torch's comes from their sum: epoch 1 of seed 0 would have the same order as epoch 0 of seed 1.
    """

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.dataset), generator=stream(0, self.seed, self.epoch))
        return iter(order[self.rank : self.total_size : self.num_replicas].tolist())

    def pixel_noise(self) -> torch.Generator:
        """The noise of this epoch for `binarize`, in this process."""
        return stream(1, self.seed, self.epoch, self.rank)


class EveryImageOnce(DistributedSampler):
    """Each process's share of all images, in order. Torch's own sampler repeats some images.

    Lightning does not divide the share again, as this is a DistributedSampler.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))


class MemoryLoader(DataLoader):
    """A DataLoader that fetches each batch of a `DiscreteImages` in one indexing operation.

    Of `GreyImages`, it draws two levels in every pass.

    Lightning can replace its sampler. The order is asked for with the first batch, not before:
    Lightning makes the iterator of a resumed run first, and restores the epoch then.
    """

    @cached_property
    def _batches(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_size=None,
            sampler=self.batch_sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Without one, every pass over a loader draws a number from the global random stream.
            generator=self.generator or torch.Generator(),
        )

    @cached_property
    def _pixel_noise(self) -> torch.Generator:
        return stream(1, self.generator.initial_seed() if self.generator else 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not isinstance(self.dataset, GreyImages):
            yield from self._batches
            return
        in_run = isinstance(self.sampler, EpochOrder)
        noise = self.sampler.pixel_noise() if in_run else self._pixel_noise
        for grey, labels in self._batches:
            yield binarize(grey, noise), labels


def mnist(
    root: str | Path = DATA_DIR,
    batch_size: int = 128,
    num_workers: int = 0,
    download: bool = True,
    bits: int = 4,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Training (shuffled), validation and test loader of MNIST in 16 levels or, with 1 bit, in two.

    Each yields images long [B, 1, 28, 28] with values below 2**bits, and labels long [B]. The order
    and the two levels of training images come from the global seed at the time of the call.
    train_pl.py itself uses `MNISTDataModule`. Raises InputError: see `prepare`.
    """
    prepare(root, "MNIST", download)
    train, val, test = MNISTDataModule(root, bits=bits).read()
    train, order = train.grey or train, torch.Generator().manual_seed(torch.initial_seed())
    return (
        MemoryLoader(train, batch_size, shuffle=True, num_workers=num_workers, generator=order),
        MemoryLoader(val, batch_size, num_workers=num_workers),
        MemoryLoader(test, batch_size, num_workers=num_workers),
    )


class MNISTDataModule(pl.LightningDataModule):
    """The three loaders for a Lightning trainer, on any number of processes.

    Each process has its share of every epoch's order, and of the validation and test images, none
    of them twice. A GPU has the images in its memory, unless num_workers asks for processes.

    Args:
        data_dir: folder that holds, or gets, `<dataset>/raw`.
        dataset: one of `DATASETS`.
        batch_size: training images per step and process; 32 is part of train_pl.py's recipe.
        num_workers: loader processes; 0 is fastest, as a batch is one indexing operation.
        seed: of the training order and, with 1 bit, of what is drawn in every epoch.
        bits: 4 for 16 grey levels, 1 for two: see `binarize`.
    """

    EVAL_BATCH_SIZE = 500  # divides both sets; not an option, so that no figure depends on it
    classes = DIGITS  # the names of the labels 0 to 9, see `DiscreteImages`

    def __init__(
        self,
        data_dir: str | Path = DATA_DIR,
        dataset: str = "MNIST",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 42,
        bits: int = 4,
    ):
        super().__init__()
        self.save_hyperparameters("dataset", "bits")  # a checkpoint says what it was trained on
        self.data_dir, self.dataset, self.bits = data_dir, dataset, bits
        self.num_levels = 2**bits
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.prepared = False

    def prepare_data(self) -> None:
        if not self.prepared:  # Lightning asks before every fit and test
            prepare(self.data_dir, self.dataset)
        self.prepared = True

    def setup(self, stage: str) -> None:
        if hasattr(self, "train"):
            return
        parts = self.read()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda" and self.num_workers == 0:
            parts = (data.to(device) for data in parts)
        self.train, self.val, self.test = parts

    def read(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        """The training, validation and test images."""
        train, test = (load(self.data_dir, self.dataset, part, self.bits) for part in (True, False))
        return *split(train), test

    def train_dataloader(self) -> DataLoader:
        # drop_last leaves out what does not divide by the processes; else images would come twice.
        shown = self.train.grey or self.train
        sampler = EpochOrder(shown, *self._processes(), seed=self.seed, drop_last=True)
        return self._loader(sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(EveryImageOnce(self.val, *self._processes()), self.EVAL_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader:
        return self._loader(EveryImageOnce(self.test, *self._processes()), self.EVAL_BATCH_SIZE)

    def _loader(self, sampler: DistributedSampler, batch_size: int) -> DataLoader:
        data, workers = sampler.dataset, self.num_workers
        return MemoryLoader(data, batch_size, sampler=sampler, num_workers=workers)

    def _processes(self) -> tuple[int, int]:
        """How many there are, and which of them this is; a single one without a trainer."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


class ImagesDataModule(MNISTDataModule):
    """The three loaders of any images with the same classes and levels; see `MNISTDataModule`.

    Args:
        name: of the data set, for records and tables.
        how: batch_size, num_workers and seed; in a run they are the run's options.
    """

    def __init__(
        self,
        name: str,
        train: DiscreteImages,
        val: DiscreteImages,
        test: DiscreteImages,
        **how: int,
    ):
        super().__init__(dataset=name, bits=(train.num_levels - 1).bit_length(), **how)
        self.classes, self.num_levels = train.classes, train.num_levels
        self.parts = train, val, test

    def prepare_data(self) -> None:
        pass

    def read(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        return self.parts
