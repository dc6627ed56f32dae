"""The figures beside the shipped model are those of a model judged on all test images."""

import json
import unittest

from tiny import whole

from judging.bounds import image_bounds
from train_pl import PRETRAINED, load_model
from utils import active_units


class TestShippedModel(unittest.TestCase):
    def test_it_reproduces_the_metrics_beside_it(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        bounds = image_bounds(load_model(PRETRAINED), whole(train=False).images, num_samples=2)
        self.assertEqual(metrics["images"], len(bounds["kl"]))
        for name in ("negative_elbo", "negative_elbo_prior", "kl"):
            mean = metrics[f"{name}_nats"]["mean"]
            self.assertAlmostEqual(bounds[name].mean().item(), mean, delta=0.01, msg=name)
        self.assertEqual(active_units(bounds["mean"]), metrics["active_units"])
        for prior in ("", "_prior"):  # two samples give less than 64
            found = bounds[f"importance_weighted{prior}"].mean().item()
            self.assertLess(metrics[f"importance_weighted{prior}_nats"]["mean"], found)
            self.assertLess(found, metrics[f"negative_elbo{prior}_nats"]["mean"])
