"""A pl.Trainer of one's own with two processes: the data module shares the images out."""

from pathlib import Path

import forked
import pytorch_lightning as pl
import torch
from tiny import InFolder, own_trainer
from torch import Tensor

from fmnist import DiscreteImages, MNISTDataModule


def numbered(count: int) -> DiscreteImages:
    return DiscreteImages(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count))


class Recorder(pl.LightningModule):
    """Writes the labels of the images that a process sees, a file per process and stage."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.weight = folder, torch.nn.Parameter(torch.zeros(()))

    def record(self, stage: str, batch: tuple[Tensor, Tensor]) -> None:
        with open(self.folder / f"{stage}_{self.global_rank}", "a") as file:
            file.writelines(f"{number}\n" for number in batch[1].tolist())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.record("train", batch)
        return self.weight

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.record("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.record("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_and_test(folder: Path) -> None:
    """For a process of its own, which starts the second one."""
    data, model = MNISTDataModule(batch_size=10), Recorder(folder)
    data.train, data.val, data.test = numbered(101), numbered(61), numbered(41)
    trainer = own_trainer(max_epochs=1, devices=2, strategy="ddp_fork")
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)


class TestForeignTrainer(InFolder):
    def test_two_processes_see_no_image_twice_and_evaluate_every_one(self):
        code, _, complaints = forked.run(train_and_test, self.folder)
        self.assertEqual(code, 0, complaints)
        seen = {"train": [], "val": [], "test": []}
        for file in self.folder.iterdir():
            seen[file.name.split("_")[0]] += map(int, file.read_text().split())
        self.assertEqual(len([*self.folder.glob("test_*")]), 2)
        self.assertEqual((len(seen["train"]), len({*seen["train"]})), (100, 100))  # of 101
        for stage, count in (("val", 61), ("test", 41)):
            self.assertEqual(sorted(seen[stage]), [*range(count)], stage)
