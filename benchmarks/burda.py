"""The network of Burda, Grosse & Salakhutdinov 2016 with one stochastic layer, on binary MNIST.

python benchmarks/burda.py --epochs 100 --seed 0    # then: python benchmarks/binary.py RUN --burda

784-200-200-50 and back, tanh, Bernoulli pixels: an example of networks of one's own, whose result
can be looked up: 86.35 nats on test images as a VAE with 50 samples of z in each step, 86.76 with
one (the paper's table 1, by 5,000 importance samples). The rest is this project's: the schedule, a
step's single sample, and the learned prior beside it. The paper trained for 3,280 epochs.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from train_pl import VAE, train_vae


class Encoder(nn.Sequential):
    """q(z|x): images long [B, 1, 28, 28] in 0..1 to mean and log_std, float [B, 50] each."""

    def __init__(self):
        hidden = (nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh())
        super().__init__(nn.Flatten(), *hidden, nn.Linear(200, 2 * 50))

    def forward(self, imgs: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(imgs.float()).chunk(2, dim=1)


class Decoder(nn.Sequential):
    """p(x|z): z float [B, 50] to logits of the levels 0 and 1, float [B, 2, 28, 28]."""

    def __init__(self):
        hidden = (nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh())
        super().__init__(*hidden, nn.Linear(200, 784), nn.Unflatten(1, (28, 28)))

    def forward(self, z: Tensor) -> Tensor:
        white = super().forward(z)  # log p(1|z) / p(0|z)
        return torch.stack([torch.zeros_like(white), white], dim=1)


class Burda(VAE):
    def __init__(self, lr: float = 1e-3):
        networks = {"encoder": Encoder(), "decoder": Decoder()}
        super().__init__(z_dim=50, num_levels=2, lr=lr, shift_probability=0.0, **networks)

    def make_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log_dir", default="burda_logs")
    args = parser.parse_args()
    train_vae(argparse.Namespace(bits=1, batch_size=100, **vars(args)), model=Burda)


if __name__ == "__main__":
    main()
