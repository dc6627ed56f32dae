"""A small classifier of digits in 16 grey levels: its features and verdicts judge samples."""

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Convolutions, each with batch normalisation and SiLU: 28x28 -> 14x14 -> 7x7 -> 64 features.

    The Fréchet distance of samples is taken in its `features` and their confidence from its
    logits. It is trained by benchmarks/classifier.py and never sees the VAE.
    """

    NUM_FEATURES = 64

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *convolution(1, 32),
            nn.MaxPool2d(2),  # 28 -> 14
            *convolution(32, 32),
            *convolution(32, 64),
            nn.MaxPool2d(2),  # 14 -> 7
            *convolution(64, 64),
            *convolution(64, self.NUM_FEATURES),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classes = nn.Linear(self.NUM_FEATURES, 10)

    def features(self, imgs: Tensor) -> Tensor:
        """Images long or uint8 [B, 1, 28, 28], values 0..15, to float [B, 64]."""
        x = imgs.to(self.classes.weight.dtype) / 15 * 2 - 1
        return self.net(x.contiguous(memory_format=torch.channels_last))

    def forward(self, imgs: Tensor) -> Tensor:
        """Images long or uint8 [B, 1, 28, 28], values 0..15, to logits float [B, 10]."""
        return self.classes(self.features(imgs))


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution that keeps the size, batch normalisation, SiLU."""
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )
