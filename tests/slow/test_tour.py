"""docs/tour.ipynb runs as it stands, and what it prints is what was committed and what it says."""

import re
import unittest
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import tiny  # noqa: F401  finds the repository's folder

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"
KIND = attrgetter("output_type")
MISSING = [name for name in ("nbclient", "ipykernel") if find_spec(name) is None]


def printed(notebook: object) -> list[str]:
    """What each code cell has printed."""
    return [
        "".join(output["text"] for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@unittest.skipIf(MISSING, f"{' and '.join(MISSING)}: pip install -r requirements-dev.txt")
class TestTour(unittest.TestCase):
    """One run of all cells, each as a reader would run it."""

    @classmethod
    def setUpClass(cls):
        import nbformat
        from nbclient import NotebookClient

        cls.committed = nbformat.read(NOTEBOOK, as_version=4)
        cls.executed = nbformat.read(NOTEBOOK, as_version=4)
        place = {"metadata": {"path": str(NOTEBOOK.parent)}}
        NotebookClient(cls.executed, timeout=1200, resources=place).execute()  # or it raises
        cls.loss, _, cls.own, cls.plane, cls.beta, cls.features = map(
            numbers, printed(cls.executed)
        )

    def words(self, start: str) -> str:
        """The text under a heading."""
        (text,) = (cell.source for cell in self.committed.cells if f"## {start}" in cell.source)
        return " ".join(text.split())

    def test_the_committed_outputs_are_those_of_its_cells(self):
        for cell, now in zip(self.committed.cells, self.executed.cells, strict=True):
            if cell.cell_type == "code":
                kinds = [[kind for kind, _ in groupby(each.outputs, KIND)] for each in (cell, now)]
                self.assertEqual(*kinds)  # what a cell prints may come in one piece or in several
                self.assertNotIn("error", kinds[0])
                self.assertEqual([o for o in cell.outputs if o.get("name") == "stderr"], [])
        # Other processors come to other digits.
        for before, now in zip(printed(self.committed), printed(self.executed), strict=True):
            self.assertEqual(re.sub(r"[\d.]+", "", before), re.sub(r"[\d.]+", "", now))
            for committed, found in zip(numbers(before), numbers(now), strict=True):
                rounded = committed.is_integer()
                self.assertAlmostEqual(found, committed, delta=0.1 * committed + rounded)

    def test_its_words_on_the_loss_one_own_digit_and_the_plane_are_what_it_prints(self):
        reconstruction, kl, total, bpd = self.loss
        self.assertAlmostEqual(reconstruction + kl, total, delta=0.11)
        bits, digit, *_ = self.own
        self.assertEqual(digit, 2)
        for found, words, under, delta in (
            (bpd, "the trained model needs about 0.5", "The loss", 0.02),
            (total / 0.693, "about 390", "Your own handwriting", 10),  # a test image
            (bits, "about 390", "Your own handwriting", 100),
            (self.plane[0], "about 0.8 bits", "The plane", 0.02),
        ):
            self.assertIn(words, self.words(under))
            self.assertAlmostEqual(found, numbers(words)[0], delta=delta)

    def test_a_larger_beta_means_less_kl_and_a_worse_reconstruction_and_1_the_best_elbo(self):
        betas, reconstructions, kls, bpds = (self.beta[start::4] for start in range(4))
        self.assertEqual(betas, [0.1, 1, 10])
        self.assertEqual(reconstructions, sorted(reconstructions))
        self.assertEqual(kls, sorted(kls, reverse=True))
        self.assertEqual(min(bpds), bpds[1])
        self.assertIn("by that measure beta 1 is the best", self.words("Beta"))

    def test_a_linear_classifier_gets_as_much_from_the_latents_as_the_words_say(self):
        shares = dict(zip(self.features[::2], self.features[1::2], strict=True))
        words = self.words("Latents as features")
        for features, share, delta in ((32, 86, 1), (784, 86, 1.5), (2, 63, 2)):
            self.assertAlmostEqual(shares[features], share, delta=delta)
            self.assertIn(f"about {share} %", words)

    def test_it_stays_small(self):
        self.assertLess(NOTEBOOK.stat().st_size, 400_000)
