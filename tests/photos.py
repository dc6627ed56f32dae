"""Photos of digits on paper, made from test digits of MNIST: each in another light and place."""

import numpy as np
from PIL import Image, ImageFilter

from fmnist import DATA_DIR
from inputs.files import read_idx

DIGITS = read_idx(DATA_DIR / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz")[:40].copy()
SIZES = ((480, 640), (600, 450), (560, 560), (880, 672))


def written(number: int, side: int) -> np.ndarray:
    """A test digit, as a pen would have written it: float [side, side], 1 is ink."""
    large = Image.fromarray(DIGITS[number]).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(large, float) - 90) / 60, 0, 1)


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    picture = Image.fromarray((255 * mask).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), float) / 255


def photo(number: int, kind: str) -> np.ndarray:
    """Grey or coloured paper with the test digit of this number: uint8 [H, W, 3].

    kind: what is difficult; two has the next digit beside it.
    """
    noise, (height, width) = np.random.default_rng(number), SIZES[number % len(SIZES)]
    y, x = np.mgrid[0:height, 0:width]
    paper = (1 - 0.15 * x / width)[..., np.newaxis] * (232, 228, 215)
    ink, side = np.array((40, 45, 70)), min(height, width) // 2
    top, left = (height - side) // 2 - height // 20, (width - side) // 2 + width // 15
    if kind == "small":
        side = min(height, width) // 8
    elif kind == "ruled":
        paper[y % 44 < 2] *= (0.72, 0.8, 0.93)
    elif kind == "squared":
        paper[(y % 30 == 0) | (x % 30 == 0)] *= (0.75, 0.82, 0.93)
    elif kind == "pencil":
        ink = np.array((125, 125, 127))
    elif kind == "red":
        ink = np.array((200, 50, 50))
    elif kind == "chalk":
        paper, ink = paper * (0.2, 0.3, 0.24), np.array((225, 225, 220))
    elif kind == "two":
        side, left = min(height, width) // 3, width // 8
    places = [(number, left)] + [(number + 1, left + width // 2 - 30)] * (kind == "two")
    for digit, left in places:
        strokes = blurred(written(digit, side), 1)[..., np.newaxis]
        part = paper[top : top + side, left : left + side]
        part += 0.9 * strokes * (ink - part)
    if kind == "table":
        paper[x + y // 12 < width // 8] = (96, 66, 44)
    elif kind == "frame":
        paper[(np.minimum(y, height - y) < 40) | (np.minimum(x, width - x) < 40)] = (96, 66, 44)
    elif kind == "wedge":
        paper *= 1 - 0.42 * blurred(x / width + y / height < 0.7, 8)[..., np.newaxis]
    elif kind == "shadow":
        paper *= 1 - 0.45 * blurred(3 * x + y > 1.7 * width, 12)[..., np.newaxis]
    elif kind == "dim":
        paper *= 0.35
    return np.clip(paper + noise.normal(0, 4, paper.shape), 0, 255).astype(np.uint8)


# Twenty photos: of each the first test digit in it, and what is difficult.
KINDS = ("plain", "small", "ruled", "squared", "pencil", "red", "chalk", "table", "frame", "wedge")
PHOTOS = [*enumerate((*KINDS, "shadow", "dim", "two", *KINDS[1:4], *KINDS[6:10]), start=10)]
