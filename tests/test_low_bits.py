"""The low bits of 8-bit pixels: their ranges, and that no probability knows what comes later."""

import unittest
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compression.low_bits import FIRST, LEVEL, SIZE, WEIGHTS, LowBits, Pixels, load
from fmnist import four_bit


def small_model() -> LowBits:
    """Random weights, large enough for every input to matter."""
    torch.manual_seed(0)
    model = LowBits(width=12, heads=2, key_dim=3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(0.15 * torch.randn_like(weights))
    return model


def noise(count: int, highest: int = 255) -> Tensor:
    values = np.random.default_rng(0).integers(0, highest + 1, (count, 28, 28))
    values[:, :, :9] = 0  # something for the fixed probability
    return torch.from_numpy(values)


@torch.inference_mode()
def all_steps(
    model: LowBits, levels: Tensor, choose: Callable[[slice, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """All probabilities, and the offsets that were chosen from them: float [N, 24], long [N]."""
    conditionals, chosen, seen = model.conditionals(levels), None, ([], [])
    for step in Pixels(levels).steps:
        probabilities = conditionals.send(chosen)
        chosen = choose(step, probabilities)
        seen[0].append(probabilities)
        seen[1].append(chosen)
    return torch.cat(seen[0]), torch.cat(seen[1])


def known(values: Tensor) -> Callable[[slice, Tensor], Tensor]:
    pixels = Pixels(LEVEL[values])
    offset = (values - FIRST[LEVEL[values]])[pixels.image, pixels.row, pixels.column]
    return lambda step, _: offset[step]


class TestOffsets(unittest.TestCase):
    def test_level_and_offset_are_the_value(self):
        values = torch.arange(256)
        self.assertEqual(SIZE.tolist(), [8, *[16] * 14, 24])
        self.assertTrue(torch.equal(LEVEL, torch.from_numpy(four_bit(values.numpy())).long()))
        offset = values - FIRST[LEVEL]
        self.assertTrue(((offset >= 0) & (offset < SIZE[LEVEL])).all())


class TestConditionals(unittest.TestCase):
    def test_they_are_probabilities_of_the_levels_offsets(self):
        values = noise(3)
        pixels = Pixels(LEVEL[values])
        probabilities, _ = all_steps(small_model(), LEVEL[values], known(values))
        torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))
        possible = torch.arange(24) < SIZE[pixels.level].unsqueeze(1)
        self.assertTrue(torch.equal(probabilities > 0, possible))

    def test_step_by_step_they_cost_what_the_training_says(self):
        values, model = noise(4), small_model()
        probabilities, offset = all_steps(model, LEVEL[values], known(values))
        with torch.inference_mode():
            nats = model(values)
        stepwise = -probabilities.gather(1, offset.unsqueeze(1)).squeeze(1).log()
        torch.testing.assert_close(stepwise, nats, rtol=1e-4, atol=1e-4)

    def test_none_depends_on_an_offset_that_is_coded_later(self):
        values, model = noise(2), small_model()
        pixels = Pixels(LEVEL[values])
        before, offset = all_steps(model, LEVEL[values], known(values))
        for step in pixels.steps[:: len(pixels.steps) // 7]:
            changed = values.clone()
            later = slice(step.start, None)
            image, row, column = pixels.image[later], pixels.row[later], pixels.column[later]
            size = SIZE[pixels.level[later]]
            changed[image, row, column] = FIRST[pixels.level[later]] + (offset[later] + 1) % size
            with torch.inference_mode():
                nats = model(changed)
            after, _ = all_steps(model, LEVEL[changed], known(changed))
            self.assertTrue(torch.equal(before[: step.stop], after[: step.stop]))
            self.assertFalse(torch.equal(before[step.stop :], after[step.stop :]))
            torch.testing.assert_close(
                nats[: step.start], model(values)[: step.start].detach(), rtol=1e-4, atol=1e-4
            )

    def test_drawing_and_reading_back_see_the_same_bits(self):
        model, levels = small_model(), LEVEL[noise(5)]
        generator = torch.Generator().manual_seed(0)
        drawn, offset = all_steps(
            model, levels, lambda _, p: torch.multinomial(p, 1, generator=generator).squeeze(1)
        )
        again, _ = all_steps(model, levels, lambda step, _: offset[step])
        self.assertTrue(torch.equal(drawn, again))

    def test_every_pixel_is_either_plainly_black_or_in_one_step(self):
        levels = LEVEL[noise(3)]
        pixels = Pixels(levels)
        seen = torch.zeros_like(levels)
        for step in pixels.steps:
            self.assertEqual(len(pixels.image[step].unique()), step.stop - step.start)
            seen[pixels.image[step], pixels.row[step], pixels.column[step]] += 1
        self.assertTrue(torch.equal(seen, pixels.near.long()))
        self.assertTrue((levels[~pixels.near] == 0).all())

    def test_black_images_have_no_step(self):
        self.assertEqual(Pixels(torch.zeros(2, 28, 28, dtype=torch.long)).steps, [])


@unittest.skipUnless(WEIGHTS.exists(), f"{WEIGHTS} is not there")
class TestShippedModel(unittest.TestCase):
    def test_it_is_below_a_megabyte(self):
        self.assertLess(WEIGHTS.stat().st_size, 1_000_000)
        load()
