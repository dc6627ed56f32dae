"""What explore.py writes into the page: networks as lists of layers, and packed weights."""

import base64
import unittest

import numpy as np
import tiny  # noqa: F401  for the path of what is tested
import torch
from torch import nn

import fmnist
from page import layers


class TestNetworksAsThePageHasThem(unittest.TestCase):
    def test_layers_that_the_page_does_not_have_are_refused_by_name(self):
        class Other(nn.Linear):
            pass

        for layer in (
            nn.Dropout(),
            Other(1, 1),
            nn.Conv2d(2, 2, 3, groups=2),
            nn.Conv2d(1, 1, 3, dilation=2),
            nn.Conv2d(1, 1, 3, padding="same"),
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(1, 1, 3, stride=2, output_padding=1),
            nn.Flatten(2),
            nn.Unflatten(1, (2, 2)),
        ):
            with self.assertRaisesRegex(
                fmnist.InputError, f"cannot compute {type(layer).__name__}"
            ):
                layers.describe(nn.Sequential(nn.SiLU(), layer), layers.Weights())

    def test_packed_weights_are_close_whatever_their_size(self):
        torch.manual_seed(0)
        sizes = (1e-20, 1e-3, 1.0, 1e20)
        weights = layers.Weights()
        row = torch.cat([size * torch.randn(layers.BLOCK) for size in sizes] + [torch.zeros(7)])
        weights.add(row[:100])
        self.assertEqual(weights.add(row[100:]), {"start": 100, "length": len(row) - 100})
        packed = weights.packed()
        scales = np.frombuffer(base64.b64decode(packed["scales"]), "<f4")
        integers = np.frombuffer(base64.b64decode(packed["integers"]), "<i2")
        found = (integers.reshape(-1, layers.BLOCK) * scales[:, None]).ravel()[: len(row)]
        allowed = 1e-4 * np.repeat((*sizes, 1), layers.BLOCK)[: len(row)]
        self.assertTrue((np.abs(found - row.numpy()) < allowed).all())
