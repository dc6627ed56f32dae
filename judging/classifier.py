"""A small classifier of digits in 16 grey levels, by which samples are judged."""

from torch import Tensor, nn


class Features(nn.Module):
    """Images to 64 numbers: convolutions at 28x28, 14x14 and 7x7, then a mean over the pixels."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *convolution(1, 32),
            nn.MaxPool2d(2),  # 28 -> 14
            *convolution(32, 32),
            *convolution(32, 64),
            nn.MaxPool2d(2),  # 14 -> 7
            *convolution(64, 64),
            *convolution(64, self.num_features),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, imgs: Tensor) -> Tensor:
        """Images uint8 or long [B, 1, 28, 28], values 0..15, to float [B, 64]."""
        return self.net(imgs.to(self.net[0].weight.dtype) / 15 * 2 - 1)


class Classifier(nn.Module):
    """The class of an image: `features` and a linear layer. It never sees the VAE.

    benchmarks/classifier.py trains it. To be used in eval mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.classes = nn.Linear(Features.num_features, 10)

    def forward(self, imgs: Tensor) -> Tensor:
        """Images uint8 or long [B, 1, 28, 28], values 0..15, to logits float [B, 10]."""
        return self.classes(self.features(imgs))


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution that keeps the size, batch normalisation, SiLU."""
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )
