"""The figures beside the shipped model are those of a model judged on all test images."""

import json
import unittest
from unittest import mock

import torch
from tiny import whole

from judging.bounds import image_bounds
from train_pl import PRETRAINED, load_model
from utils import active_units


class TestShippedModel(unittest.TestCase):
    def test_it_reproduces_the_metrics_beside_it(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        model, images = load_model(PRETRAINED), whole(train=False).images
        bounds = image_bounds(model, images[:200], num_samples=2)
        for prior in ("", "_prior"):  # two samples gain less than 64
            negative_elbo, better = f"negative_elbo{prior}", f"importance_weighted{prior}"
            gain = (bounds[negative_elbo] - bounds[better]).mean().item()
            told = (metrics[f"{name}_nats"]["mean"] for name in (negative_elbo, better))
            self.assertTrue(0 < gain < next(told) - next(told))
        none = mock.Mock(side_effect=lambda log_px, imgs, *_: torch.zeros(2, len(imgs)))
        with mock.patch("judging.bounds.importance_weighted_bpd", none):
            bounds = image_bounds(model, images, num_samples=1)
        self.assertEqual(metrics["images"], len(bounds["kl"]))
        for name in ("negative_elbo", "negative_elbo_prior", "kl"):
            mean = metrics[f"{name}_nats"]["mean"]
            self.assertAlmostEqual(bounds[name].mean().item(), mean, delta=0.01, msg=name)
        self.assertEqual(active_units(bounds["mean"]), metrics["active_units"])
