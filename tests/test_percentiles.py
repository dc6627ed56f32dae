"""The place of a figure among those of test images."""

import unittest

import tiny  # noqa: F401  for the path of what is tested
import torch

from judging.percentiles import UNUSUAL, hundredths, percentile


class TestPercentile(unittest.TestCase):
    def test_it_is_the_share_below_and_hundredths_stand_for_all_values(self):
        among = torch.randperm(1000).float()
        values = torch.tensor([-1.0, 0.5, 250.5, 500.5, 999.5])
        expected = torch.tensor([0, 0.1, 25.1, 50.1, 100])
        torch.testing.assert_close(percentile(values, among), expected)
        few = hundredths(among)
        self.assertEqual(len(few), 100)
        torch.testing.assert_close(percentile(values, few), expected, atol=0.51, rtol=0)
        ends = torch.tensor([UNUSUAL, 100 - UNUSUAL]) / 100
        torch.testing.assert_close(among.quantile(ends), few[[0, -1]])
