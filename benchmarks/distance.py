"""How far apart two sets of real digits are, by their size: python benchmarks/distance.py

The Fréchet distance of judging/samples.py between two sets of test images that share none: what
it says of perfect samples. Means and standard deviations of ten draws of the two sets.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
from judging.samples import classify, frechet_distance, load_classifier

if __name__ == "__main__":
    fmnist.prepare()
    features, _ = classify(load_classifier(), fmnist.load(train=False).images)
    torch.manual_seed(0)
    for size in (200, 500, 1000, 2000, 5000):
        orders = [torch.randperm(len(features)) for _ in range(10)]
        pairs = [(features[order[:size]], features[order[size : 2 * size]]) for order in orders]
        distances = torch.tensor([frechet_distance(*pair) for pair in pairs])
        print(f"{size:>5} images each: {distances.mean():.2f} ± {distances.std():.2f}")
