"""Figures: what is written on them, that it can be read, and by whom."""

import unittest
from itertools import combinations
from statistics import NormalDist
from unittest import mock

import matplotlib
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from tiny import NUM_TEST, few, finished_run
from torch import nn
from torchvision.utils import make_grid

from pictures import of_model
from pictures.figures import (
    CLASS_COLOURS,
    SHOWN,
    captioned_figure,
    discriminant_plane,
    grid_figure,
    kl_figure,
    latent_figure,
    losses_figure,
    pairs_grid,
    principal_plane,
    pushed_apart,
    rendered,
)
from pictures.in_training import epoch_line
from pictures.of_model import manifold_figure, reconstructions_figure, samples_figure
from train_pl import VAE
from utils import mean_image


def shown_images(figure: Figure) -> list[np.ndarray]:
    """The pixels of every axes of a figure."""
    picture, found = rendered(figure), []
    for axes in figure.axes:
        (left, bottom), (right, top) = axes.bbox.get_points().round().astype(int)
        found.append(picture[len(picture) - top : len(picture) - bottom, left:right])
    return found


class Corner(nn.Module):
    """Draws white where both latents are positive, and black elsewhere."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # its device is that of the pictures

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        white = (z > 0).all(dim=1)
        levels = nn.functional.one_hot(15 * white.long(), 16)
        return 1000.0 * levels[..., None, None].expand(-1, -1, 28, 28)


class TestImages(unittest.TestCase):
    def test_every_grey_level_of_samples_is_a_square_of_whole_pixels_and_it_says_why_they_speckle(
        self,
    ):
        torch.manual_seed(0)
        model, z = VAE(num_filters=2, z_dim=3).eval(), torch.randn(11, 3)
        with torch.no_grad():
            expected = mean_image(model.decoder(z))
        torch.manual_seed(1)
        figure = samples_figure(model, z, "title")
        torch.manual_seed(1)
        drawn = model.draw_pixels(z) / 15
        for images, shown in zip((drawn, expected), shown_images(figure), strict=True):
            grid = (255 * make_grid(images, nrow=8)).round().byte()
            large = grid.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
            self.assertTrue(np.array_equal(shown, large.permute(1, 2, 0).numpy()))
        left, right = figure.axes
        self.assertRegex(left.get_title(), "drawn.*each pixel on its own.*speckle")
        self.assertRegex(right.get_title(), "expected grey levels")

    def test_many_samples_are_about_as_wide_as_high_and_thousands_take_no_gigabytes(self):
        model = VAE(num_filters=2, z_dim=3).eval()
        black = mock.Mock(side_effect=lambda _, z: torch.zeros(len(z), 1, 28, 28))
        with mock.patch.multiple(of_model, mean_images=black, drawn_images=black):
            (axes,) = samples_figure(model, torch.randn(110, 3), "title", draw=False).axes
            box = samples_figure(model, torch.randn(1100, 3), "title").bbox
        self.assertEqual(axes.get_title(), "expected grey levels")
        self.assertEqual(axes.images[0].get_array().shape, (10 * 30 + 2, 11 * 30 + 2, 3))
        self.assertLess(box.width * box.height, 3e6)  # pixels

    def test_every_image_is_over_its_own_reconstruction_for_any_number(self):
        for num in (1, 5, 8, 30):
            images = torch.rand(num, 1, 28, 28)
            grid = pairs_grid(images, 1 - images)[0]
            for n in range(num):
                top, left = 2 + 60 * (n // 8), 2 + 30 * (n % 8)
                image, below = (grid[t : t + 28, left : left + 28] for t in (top, top + 30))
                self.assertTrue(torch.equal(image, images[n, 0]))
                self.assertTrue(torch.equal(below, 1 - images[n, 0]))

    def test_the_values_at_the_axes_of_the_plane_are_those_of_the_images_beside_them(self):
        figure = manifold_figure(VAE(z_dim=2, decoder=Corner()), "title", grid_size=4)
        (axes,) = figure.axes
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel()), ("z[0]", "z[1]"))
        rising = [f"{NormalDist().inv_cdf(share):.2f}" for share in (0.125, 0.375, 0.625, 0.875)]
        for axis, values in ((axes.xaxis, rising), (axes.yaxis, rising[::-1])):
            self.assertEqual([tick.get_text() for tick in axis.get_ticklabels()], values)
            np.testing.assert_allclose(axis.get_ticklocs(), [13.5, 41.5, 69.5, 97.5])
        (shown,) = shown_images(figure)
        truth = np.zeros((2 * 4 * 28, 2 * 4 * 28), np.uint8)
        truth[:112, 112:] = 255  # to the right and at the top
        self.assertTrue(np.array_equal(shown[..., 0], truth))


class TestWords(unittest.TestCase):
    def test_they_stand_beside_images_and_each_other_in_every_figure(self):
        model = VAE(num_filters=2, z_dim=3, beta=10.5).eval()
        when = epoch_line(100, torch.tensor(0.5), model)
        image, rows = torch.randint(16, (1, 1, 28, 28)), [torch.rand(11, 1, 28, 28)] * 3
        plane = VAE(z_dim=2, decoder=Corner())
        for name, figure in {
            "one": samples_figure(model, torch.randn(1, 3), f"Samples ({when})"),
            "mean": samples_figure(model, torch.randn(1, 3), "Samples, seed 0", draw=False),
            "by class": samples_figure(model, torch.randn(20, 3), when, [*"0123456789"]),
            "pairs": reconstructions_figure(model, image, f"Reconstructions ({when})"),
            "rows": grid_figure(rows, "Traversals", [f"z[{n}], 12.3 nats" for n in range(3)]),
            "own": captioned_figure(
                dict.fromkeys(("picture", "reconstruction", "nearest"), torch.rand(9, 1, 28, 28)),
                ["a long name…\n4 (100%)\n1235 bits"] * 9,
                "The first 64 of 1000 things, how the model draws them, and the nearest training "
                "images\nTest images have 1235 bits (median)",
            ),
            "manifold": manifold_figure(plane, f"The latent plane, decoded ({when})"),
        }.items():
            with self.subTest(figure=name):
                figure.draw_without_rendering()
                texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
                boxes = {text.get_text(): text.get_window_extent() for text in texts}
                whole, images = figure.bbox, [axes.bbox for axes in figure.axes]
                for text, box in boxes.items():
                    inside = whole.x0 <= box.x0 < box.x1 <= whole.x1 and whole.y0 <= box.y0
                    self.assertTrue(inside and box.y1 <= whole.y1, f"{text!r} is cut off")
                    self.assertEqual(box.count_overlaps(images), 0, f"{text!r} is on an image")
                for (one, box), (other, beside) in combinations(boxes.items(), 2):
                    self.assertFalse(box.overlaps(beside), f"{one!r} on {other!r}")

    def test_pictures_of_a_run_say_epoch_and_bpd_as_far_as_they_are_known(self):
        bpd = torch.tensor(0.51234)
        for epoch, known, beta, words in (
            (0, bpd, 1, "before training"),
            (3, None, 1, "epoch 3"),
            (3, bpd, 1, "epoch 3, last validation 0.5123 bpd"),
            (3, None, 4, "epoch 3, beta 4"),
            (3, bpd, 4, "epoch 3, validation ELBO 0.5123 bpd, beta 4"),
        ):
            model = VAE(num_filters=2, z_dim=3, beta=beta)
            self.assertEqual(epoch_line(epoch, known, model), words)


class TestProjector(unittest.TestCase):
    def test_it_has_the_mean_the_class_and_the_image_of_every_test_image(self):
        (embeddings,) = finished_run().folder.glob("*/latent_means")
        rows = (embeddings / "tensors.tsv").read_text().splitlines()
        self.assertEqual([len(row.split("\t")) for row in rows], [2] * NUM_TEST)
        labels = (embeddings / "metadata.tsv").read_text().split()
        self.assertEqual(labels, [f"{y}" for y in few(train=False).labels.tolist()])
        sprite = torch.tensor(np.array(Image.open(embeddings / "sprite.png"))).flatten(0, 1)
        for colour in ("white", *(CLASS_COLOURS[int(y)] for y in set(labels))):
            away = (sprite - 255 * torch.tensor(to_rgb(colour))).abs().amax(dim=1)
            self.assertLess(away.min(), 1.01)


class TestCharts(unittest.TestCase):
    def test_the_kl_of_a_runs_epochs_is_drawn_to_one_scale_and_latents_are_counted_from_0(self):
        for kl, top in (([0.0, 0.1], 4), ([3.9, 0.1], 4), ([1.0, 5.0], 8)):
            (axes,) = kl_figure(torch.tensor(kl)).axes
            self.assertEqual(axes.get_ylim(), (0, top))
        self.assertEqual([tick.get_text() for tick in axes.get_xticklabels()], ["1", "0"])

    def test_the_first_epoch_does_not_flatten_the_others_and_the_best_is_marked(self):
        names = ("train_bpd", "val_bpd", "train_reconstruction_loss", "val_reconstruction_loss")
        values = enumerate(("0.94", "0.6", "0.5", "0.52"), start=1)
        rows = [{"epoch": f"{n}", **dict.fromkeys(names, value)} for n, value in values]
        for axes in losses_figure(rows).axes[::2]:
            self.assertLess(axes.get_ylim()[1], 0.7)
            self.assertIn("▲ 0.94, 0.94", [text.get_text() for text in axes.texts])
            self.assertEqual(axes.lines[-1].get_label(), "best epoch")
            self.assertEqual(axes.lines[-1].get_xdata()[0], 3)
        self.assertEqual(axes.lines[0].get_label(), "training, N(0, I)")
        self.assertFalse(any(axes.texts for axes in losses_figure(rows[:2]).axes))


class TestLatentMap(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_more_than_two_dimensions_are_seen_along_the_two_that_vary_most(self):
        points = torch.randn(1000, 5) * torch.tensor([0.1, 3.0, 0.1, 1.0, 0.1]) + 7
        plane, shares = principal_plane(points)
        for column, dimension in enumerate((1, 3)):
            pair = torch.stack([plane[:, column], points[:, dimension]])
            self.assertGreater(torch.corrcoef(pair)[0, 1].abs(), 0.99)
        torch.testing.assert_close(shares, torch.tensor([0.9, 0.1]), atol=0.03, rtol=0)

    def test_of_more_dimensions_with_classes_it_is_the_plane_that_tells_the_classes_apart(self):
        labels = torch.arange(900) % 3
        corners = torch.tensor([[0.0, 1.0], [2.0, 0.0], [-2.0, 0.0]])
        points = 10 * torch.randn(900, 5)  # most varies where the classes are the same
        points[:, [1, 3]] = corners[labels] + 0.1 * torch.randn(900, 2)
        plane, shares = discriminant_plane(points, labels)
        self.assertGreater(shares.sum(), 0.99)
        classes = [plane[labels == label] for label in range(3)]
        self.assertLess(max(some.std(dim=0).max() for some in classes), 1.2)  # in stds of a class
        centres = torch.stack([some.mean(dim=0) for some in classes])
        self.assertGreater(torch.pdist(centres).min(), 10)
        axes = latent_figure(points, labels, classes="abc").axes[0]
        self.assertRegex(axes.get_xlabel(), r"first linear discriminant \(\d\d% of what separates")
        self.assertIn("principal", latent_figure(points, labels, classes=()).axes[0].get_xlabel())

    def test_two_dimensions_are_the_plane_itself_each_class_with_its_number_and_colour(self):
        means, labels = torch.randn(50, 2) * torch.tensor([2.0, 1.0]), torch.arange(50) % 10
        figure = latent_figure(means, labels)
        (axes,) = figure.axes
        self.assertGreater(figure.get_figwidth(), 1.2 * figure.get_figheight())  # as its data
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel()), ("z[0]", "z[1]"))
        shapes = set()
        for label, points in enumerate(axes.collections):
            shown = torch.tensor(np.array(points.get_offsets())).float()
            torch.testing.assert_close(shown, means[labels == label])
            self.assertEqual(tuple(points.get_facecolor()[0, :3]), to_rgb(CLASS_COLOURS[label]))
            shapes.add(points.get_paths()[0].vertices.tobytes())
        self.assertEqual(len(shapes), 10)

    def test_the_colours_are_petroffs_ten_which_the_colour_blind_can_tell_apart_too(self):
        cycle = matplotlib.style.library["petroff10"]["axes.prop_cycle"]
        self.assertEqual(set(CLASS_COLOURS), set(cycle.by_key()["color"]))

    def test_classes_are_named_at_their_centres_and_names_do_not_hide_each_other(self):
        labels, places = torch.arange(3000) % 10, 10 * torch.rand(10, 2)
        axes = latent_figure(places[labels] + 0.1 * torch.randn(3000, 2), labels).axes[0]
        self.assertEqual([text.get_text() for text in axes.texts], [*"0123456789"])
        for text, place in zip(axes.texts, places, strict=True):
            self.assertLess((torch.tensor(text.get_position()) - place).norm(), 0.6)
        shown = sum(len(points.get_offsets()) for points in axes.collections)
        self.assertTrue(SHOWN / 2 <= shown <= SHOWN)
        self.assertIn(f"{shown:,} of 3,000 images", axes.get_title())
        points = pushed_apart(0.01 * torch.randn(10, 2), distance=1.0)
        self.assertGreater(torch.pdist(points).min(), 0.9)
        apart = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
        self.assertTrue(torch.equal(pushed_apart(apart, distance=1.0), apart))
        latent_figure(torch.zeros(4, 2), torch.arange(4))  # an encoder that tells nothing
