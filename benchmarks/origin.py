"""The recipe that this project started from, re-created to be compared with.

Five convolutions and one linear layer, a mirrored decoder, Adam at a constant learning rate of
1e-3, batches of 128, 80 epochs, and images that pass one by one through PIL, ToTensor and the
discretisation in a DataLoader with two workers. Written from the description of that recipe.

    python benchmarks/origin.py --csv origin.csv                # the recipe as it was
    python benchmarks/origin.py --csv origin.csv --gathered     # its curve, with our data path

Every fourth epoch and after the last one, a line goes into the CSV file: epoch, training seconds so
far, val_bpd, test_bpd.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fmnist import DATA_DIR, NUM_TRAIN, NUM_VAL, SPLIT_SEED, discretize, mnist
from utils import KLD, elbo_to_bpd, reconstruction_loss, sample_reparameterize


class OriginVAE(nn.Module):
    """The origin's two networks: 28 -> 14 -> 7 -> 4 -> z and back, 271 k parameters."""

    def __init__(self, f: int = 32, z_dim: int = 20):
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, f, 3, stride=2, padding=1), nn.GELU()),
            *(nn.Conv2d(f, f, 3, padding=1), nn.GELU()),
            *(nn.Conv2d(f, 2 * f, 3, stride=2, padding=1), nn.GELU()),
            *(nn.Conv2d(2 * f, 2 * f, 3, padding=1), nn.GELU()),
            *(nn.Conv2d(2 * f, 2 * f, 3, stride=2, padding=1), nn.GELU()),
            *(nn.Flatten(), nn.Linear(2 * f * 16, 2 * z_dim)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(z_dim, 2 * f * 16), nn.GELU(), nn.Unflatten(1, (2 * f, 4, 4))),
            *(nn.ConvTranspose2d(2 * f, 2 * f, 3, stride=2, padding=1), nn.GELU()),
            *(nn.Conv2d(2 * f, 2 * f, 3, padding=1), nn.GELU()),
            *(nn.ConvTranspose2d(2 * f, f, 3, 2, padding=1, output_padding=1), nn.GELU()),
            *(nn.Conv2d(f, f, 3, padding=1), nn.GELU()),
            nn.ConvTranspose2d(f, 16, 3, 2, padding=1, output_padding=1),
        )

    def forward(self, imgs: Tensor) -> Tensor:
        """Images long [B, 1, 28, 28] to their mean bpd, a scalar."""
        mean, log_std = self.encoder(imgs.float() / 15 * 2 - 1).chunk(2, dim=1)
        logits = self.decoder(sample_reparameterize(mean, log_std.exp()))
        negative_elbo = reconstruction_loss(logits, imgs) + KLD(mean, log_std)
        return elbo_to_bpd(negative_elbo, imgs.shape).mean()


def origin_loaders(batch_size: int = 128, num_workers: int = 2) -> list[DataLoader]:
    """The per-image pipeline: PIL, ToTensor, discretise, collate, in worker processes."""
    transform = transforms.Compose([transforms.ToTensor(), discretize])
    train, test = (  # `download` also extracts the archives that are there
        datasets.MNIST(DATA_DIR, train=flag, download=True, transform=transform)
        for flag in (True, False)
    )
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    train, val = random_split(train, [NUM_TRAIN, NUM_VAL], generator=generator)
    return [
        DataLoader(data, batch_size, shuffle=data is train, num_workers=num_workers)
        for data in (train, val, test)
    ]


@torch.no_grad()
def mean_bpd(bpd: Callable[[Tensor], Tensor], loader: DataLoader) -> float:
    total = sum(bpd(imgs).item() * len(imgs) for imgs, _ in loader)
    return total / len(loader.dataset)


def train_and_record(
    bpd: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    loaders: list[DataLoader],
    epochs: int,
    csv: Path,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    augmented: Callable[[Tensor], Tensor] = lambda imgs: imgs,
    every: int = 1,
) -> None:
    """A bare loop: trains on `bpd` of the images, writes a line after every `every` epochs."""
    train_loader, val_loader, test_loader = loaders
    seconds = 0.0
    with open(csv, "w") as file:
        print("epoch,train_seconds,val_bpd,test_bpd", file=file, flush=True)
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            for imgs, _ in train_loader:
                loss = bpd(augmented(imgs))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if schedule is not None:
                    schedule.step()
            seconds += time.perf_counter() - start
            if epoch % every and epoch < epochs:
                continue
            val, test = mean_bpd(bpd, val_loader), mean_bpd(bpd, test_loader)
            line = f"{epoch},{seconds:.1f},{val:.4f},{test:.4f}"
            print(line, file=file, flush=True)
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True, help="file for the curve")
    parser.add_argument("--gathered", action="store_true", help="our data path instead of its own")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = OriginVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if args.gathered:  # the same arithmetic sooner: only the images per second change
        model = model.to(memory_format=torch.channels_last)
    loaders = mnist() if args.gathered else origin_loaders()
    train_and_record(model, optimizer, loaders, args.epochs, args.csv, every=4)


if __name__ == "__main__":
    main()
