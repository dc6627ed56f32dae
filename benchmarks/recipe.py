"""The default network in a bare loop, with the settings of the optimiser to vary; see recipe.md.

python benchmarks/recipe.py --epochs 4                                   # the default, shorter
python benchmarks/recipe.py --epochs 4 --optimizer adamw --lr 4e-3
python benchmarks/recipe.py --epochs 4 --batch_size 128 --num_filters 48
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from origin import train_and_record

import fmnist
from muon import Muon, warmup_and_line
from train_pl import VAE, make_parser


def main() -> None:
    defaults = make_parser().parse_args([])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--momentum", type=float, default=0.9, help="Muon's")
    for name in ("lr", "batch_size", "num_filters", "z_dim", "epochs"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, default="recipe.csv", help="file for the curve")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = VAE(args.num_filters, args.z_dim, args.lr)
    if args.optimizer == "muon":
        optimizer = Muon(model.parameters(), lr=args.lr, momentum=args.momentum)
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )
    loaders = fmnist.mnist(batch_size=args.batch_size)
    total = args.epochs * len(loaders[0])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_and_line(step, total, VAE().hparams.warmup)
    )
    train_and_record(
        lambda imgs: model(imgs)[2],
        optimizer,
        loaders,
        args.epochs,
        args.csv,
        schedule,
        lambda imgs: model.augmented(imgs, schedule.last_epoch / total),
    )


if __name__ == "__main__":
    main()
