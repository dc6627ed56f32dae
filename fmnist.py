"""MNIST with 16 grey levels: the data that the model is trained on.

Torchvision downloads the archives; this module reads them, turns their 256 grey levels into 16,
keeps the result in memory as uint8, and hands out whole batches.
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

from boundary.command_line import InputError, nearest_folder, one_line
from boundary.files import read_idx

DATA_DIR = Path(__file__).resolve().parent / "data"  # holds the four official MNIST files
DATASETS = ("MNIST", "FashionMNIST", "KMNIST")  # torchvision classes that share one file format
SIDE = 28  # pixels of an image, each way
NUM_TRAIN, NUM_VAL = 54_000, 6_000
DIGITS = tuple("0123456789")
SPLIT_SEED = 42  # fixed, so that every run is judged on the same validation images


def discretize(images: Tensor, num_values: int = 16) -> Tensor:
    """Grey levels in [0, 1] to integer levels: min(round(num_values * images), num_values - 1).

    Args:
        images: float, any shape, values in [0, 1].
        num_values: number of levels; 16 makes 4-bit images.
    Returns:
        long, same shape, values in 0..num_values-1.
    Raises:
        TypeError: images are not floating point.
        ValueError: a value lies outside [0, 1] or is not a number, or num_values is below 1.
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
    """Pixels of 256 grey levels to 16: `discretize`, from a table of the 256 possible results.

    Args:
        pixels: uint8, any shape.
    Returns:
        uint8, same shape, values 0..15.
    """
    return discretize(torch.arange(256) / 255).to(torch.uint8).numpy()[pixels]


class DiscreteImages(Dataset):
    """Images of integer grey levels with their labels, fetched a batch at a time.

    Args:
        images: uint8 [N, 1, 28, 28], values 0..15: a byte a pixel, the whole set stays in cache.
        labels: long [N].
        classes: what the labels 0, 1, ... stand for; none where the images have no labels, and all
            of these are 0.
    Raises:
        TypeError: another dtype.
        ValueError: another shape or range. All pixels are looked at here, once, so that no
            training step has to.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str] = DIGITS):
        if (images.dtype, labels.dtype) != (torch.uint8, torch.long):
            raise TypeError(
                f"expected uint8 images and long labels, got {images.dtype} and {labels.dtype}"
            )
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                "expected images [N, 1, H, W] and labels [N], got "
                f"{list(images.shape)} and {list(labels.shape)}"
            )
        if len(images) and (highest := int(images.max())) > 15:
            raise ValueError(f"expected grey levels 0..15, got {highest}: see discretize")
        self.images, self.labels, self.classes = images, labels, tuple(classes)

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
        index = index.to(self.images.device)
        return DiscreteImages(self.images[index], self.labels[index], self.classes)

    def to(self, device: torch.device) -> "DiscreteImages":
        return DiscreteImages(self.images.to(device), self.labels.to(device), self.classes)


def prepare(root: str | Path = DATA_DIR, dataset: str = "MNIST", download: bool = True) -> None:
    """Makes sure that the four archives in `<root>/<dataset>/raw` are the official ones.

    Torchvision knows their addresses and MD5s. What is missing is downloaded; a file that is there
    is never replaced.

    Raises:
        InputError: an archive is missing and cannot be downloaded, or is another file.
        ValueError: an unknown dataset.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}, choose one of {', '.join(DATASETS)}")
    official, folder = getattr(datasets, dataset), Path(root, dataset, "raw")
    for name, md5 in official.resources:
        path = folder / name
        try:
            if check_integrity(path, md5):
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
                "network, restore the file or choose another --data_dir"
            ) from error


def load(root: str | Path = DATA_DIR, dataset: str = "MNIST", train: bool = True) -> DiscreteImages:
    """The whole training set (60,000) or test set (10,000) in 16 levels; call `prepare` before.

    Raises:
        InputError: an archive cannot be read.
    """
    folder, part = Path(root, dataset, "raw"), "train" if train else "t10k"
    try:
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.shape} and labels {labels.shape} do not fit")
        if labels.max(initial=0) > 9:
            raise ValueError("a label is not in 0..9")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise InputError(
            f"cannot read the {part} archives in {folder} ({one_line(error)}): restore them, or "
            "remove them to have them downloaded"
        ) from error
    return DiscreteImages(
        torch.from_numpy(four_bit(images)).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))
    )


def split(data: DiscreteImages) -> tuple[DiscreteImages, DiscreteImages]:
    """The training set in two: 54,000 images for training and 6,000 for validation."""
    train, val = split_positions()
    return data.subset(train), data.subset(val)


def split_positions() -> tuple[Tensor, Tensor]:
    """The positions in the training set of `split`'s two parts: long [54000] and [6000]."""
    order = torch.randperm(NUM_TRAIN + NUM_VAL, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order.split([NUM_TRAIN, NUM_VAL])


class EpochOrder(DistributedSampler):
    """Each process's share of an epoch's order, which derives from a hash of (seed, epoch).

    Torch's own order derives from their sum: seed 1 would see seed 0's, an epoch earlier.
    """

    def __iter__(self) -> Iterator[int]:
        # The spawn key keeps it apart from the noise of `SeedEpochs`, which has hashes of its own.
        entropy = np.random.SeedSequence((self.seed, self.epoch), spawn_key=(0,))
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        order = torch.randperm(len(self.dataset), generator=generator)
        return iter(order[self.rank : self.total_size : self.num_replicas].tolist())


class EveryImageOnce(DistributedSampler):
    """Each process's share of all images in their order; torch's own repeats some to fill up.

    As it is a DistributedSampler, Lightning does not divide the share again.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))


class MemoryLoader(DataLoader):
    """A DataLoader that fetches each batch of a `DiscreteImages` in one indexing operation.

    It looks like any loader of images, in which Lightning can replace the sampler. The one that
    does the work begins when the first batch is asked for: Lightning makes the iterator of a
    resumed run before it restores the epoch, which the order derives from.
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

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._batches


def mnist(
    root: str | Path = DATA_DIR, batch_size: int = 128, num_workers: int = 0, download: bool = True
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Training (shuffled), validation and test loader of 4-bit MNIST.

    Each yields images long [B, 1, 28, 28] with values 0..15 and labels long [B]. The order of the
    training images derives from the global seed at the time of the call. These are loaders for
    models of one's own, with the usual batches of 128; train_pl.py takes `MNISTDataModule`, with
    the batches of its own recipe.

    Raises:
        InputError: see `prepare`.
    """
    prepare(root, "MNIST", download)
    train, val = split(load(root))
    test = load(root, train=False)
    order = torch.Generator().manual_seed(torch.initial_seed())
    sizes = {"batch_size": batch_size, "num_workers": num_workers}
    return (
        MemoryLoader(train, shuffle=True, generator=order, **sizes),
        MemoryLoader(val, **sizes),
        MemoryLoader(test, **sizes),
    )


class MNISTDataModule(pl.LightningDataModule):
    """The three loaders for a Lightning trainer, on any number of processes.

    One process per node prepares the files. Each process then trains on its own share of every
    epoch's order, which derives from (seed, epoch), and evaluates its own share of the validation
    and test images, of which none is counted twice. On a GPU the images live in its memory,
    unless loader processes are asked for.

    Args:
        data_dir: folder that holds, or gets, `<dataset>/raw`.
        dataset: one of `DATASETS`.
        batch_size: training images per step and process; 32 is part of train_pl.py's recipe, and
            no measure for other models, for which `mnist` has its own default.
        num_workers: loader processes; 0 is fastest, as a batch is one indexing operation.
        seed: of the training order.
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
    ):
        super().__init__()
        self.save_hyperparameters("dataset")  # so that a checkpoint says what it was trained on
        self.data_dir, self.dataset = data_dir, dataset
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed

    def prepare_data(self) -> None:
        prepare(self.data_dir, self.dataset)

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
        return *split(load(self.data_dir, self.dataset)), load(self.data_dir, self.dataset, False)

    @property
    def _process(self) -> dict[str, int]:
        """Which of how many processes this is; a single one without a trainer."""
        if self.trainer is None:
            return {"num_replicas": 1, "rank": 0}
        return {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}

    def train_dataloader(self) -> DataLoader:
        # To drop the last ones is to take no image twice in an epoch.
        sampler = EpochOrder(self.train, **self._process, seed=self.seed, drop_last=True)
        return self._loader(sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(EveryImageOnce(self.val, **self._process), self.EVAL_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader:
        return self._loader(EveryImageOnce(self.test, **self._process), self.EVAL_BATCH_SIZE)

    def _loader(self, sampler: DistributedSampler, batch_size: int) -> DataLoader:
        how = {"sampler": sampler, "batch_size": batch_size, "num_workers": self.num_workers}
        return MemoryLoader(sampler.dataset, **how)
