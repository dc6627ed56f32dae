"""A second data set: scikit-learn's 1,797 digits of 8x8 pixels, as a file for --data.

    pip install scikit-learn
    python benchmarks/own_digits.py digits.npz
    python train_pl.py --data digits.npz --like_mnist --epochs 80

The digits are those of the test set of E. Alpaydin and C. Kaynak, "Optical recognition of
handwritten digits", UCI Machine Learning Repository, 1998 (CC BY 4.0): 17 grey levels, other
writers than MNIST's.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

if __name__ == "__main__":
    digits = load_digits()
    images = (255 * digits.images / 16).round().astype(np.uint8)
    with open(sys.argv[1], "xb") as file:  # replaces nothing
        np.savez_compressed(file, images=images, labels=digits.target)
