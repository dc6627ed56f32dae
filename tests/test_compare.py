"""compare.py: finished runs beside each other."""

import json
from pathlib import Path
from statistics import mean, stdev

from tiny import InFolder, finished_run, rows, run_command

import compare
import train_pl

RESULT = {
    "test_bpd": 0.5,
    "test_prior_bpd": 0.48,
    "test_reconstruction_loss": 212.0,
    "test_regularization_loss": 62.0,
    "seconds": 786.0,
    "parameters": {"encoder": 400, "decoder": 600},
    "flops_per_image": {"encoder": 3_000_000, "decoder": 4_000_000},
    "options": {"seed": 0, "z_dim": 32, "beta": 1.0, "dataset": "MNIST", "data": None},
    "model": {"class": "VAE", "z_dim": 32},
    "trained_on": {"dataset": "MNIST"},
}


class TestCompare(InFolder):
    def run_of(self, name: str, seed: int = 0, beta: float = 1.0, **result: object) -> Path:
        """The folder of a run with this result."""
        folder = self.folder / name
        folder.mkdir()
        told = {"seed": seed, "beta": beta, "progress_bar": seed > 0}  # which makes no column
        options = {**RESULT["options"], **told}
        (folder / "result.json").write_text(json.dumps({**RESULT, "options": options, **result}))
        return folder

    def test_a_row_is_the_mean_over_the_seeds_with_their_standard_deviation(self):
        bpds = (0.5, 0.6, 0.8)
        runs = [self.run_of(f"a{n}", seed=n, test_bpd=bpd) for n, bpd in enumerate(bpds)]
        runs.append(self.run_of("b", beta=4.0, test_bpd=0.7))
        code, said, error = run_command(compare.main, *runs, "--csv", self.folder / "runs.csv")
        self.assertEqual(code, 0, error)
        header, first, second = (line.split() for line in said.splitlines())
        self.assertEqual(header[:3], ["beta", "runs", "bpd"])
        self.assertEqual(first[:5], ["1.0", "3", "0.6333", "±", "0.1528"])
        self.assertEqual(second[:3], ["4.0", "1", "0.7000"])
        self.assertIn("7,000,000", said)
        one, other = rows(self.folder / "runs.csv")
        self.assertEqual((one["beta"], other["beta"]), ("1.0", "4.0"))
        self.assertAlmostEqual(float(one["test_bpd"]), mean(bpds))
        self.assertAlmostEqual(float(one["test_bpd_std"]), stdev(bpds))
        self.assertEqual(other["test_bpd_std"], "")
        self.assertEqual(float(one["parameters"]), 1000)

    def test_a_real_run_is_read(self):
        run = finished_run().folder
        (row,) = compare.compare([run])
        found = compare.MEASURES.keys()
        self.assertEqual(row.keys(), {"runs", *found} | {f"{name}_std" for name in found})
        model, result = train_pl.load_model(run), json.loads((run / "result.json").read_text())
        self.assertEqual(row["parameters"], sum(p.numel() for p in model.parameters()))
        # The decoder's first layer and its last convolution are a part of its FLOPs.
        least = 2 * (2 * 4 * 49 + 28 * 28 * 16)
        self.assertGreater(result["flops_per_image"]["decoder"], least)
        self.assertEqual(row["flops_per_image"], sum(result["flops_per_image"].values()))

    def test_images_are_told_by_their_digest_under_whatever_name(self):
        images = {"dataset": "mine", "digest": "abc"}
        one = self.run_of("one", trained_on=images)
        other = self.run_of("other", seed=1, trained_on={**images, "dataset": "moved"})
        code, said, error = run_command(compare.main, one, other)
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(len(said.splitlines()), 2)

    def test_runs_that_cannot_be_compared_are_refused_in_one_line(self):
        good, other = self.run_of("good"), self.run_of("other", trained_on={"dataset": "KMNIST"})
        larger = self.run_of("larger", seed=1, parameters={"encoder": 5})
        own, changed = (
            self.run_of(name, trained_on={"dataset": "mine", "digest": name})
            for name in ("own", "changed")
        )
        damaged, odd, unfinished = map(self.run_of, ("damaged", "odd", "unfinished"))
        (damaged / "result.json").write_text('{"options": 3')
        (odd / "result.json").write_text('{"options": {}, "test_bpd": "much"}')
        (unfinished / "result.json").unlink()
        for runs, said in (
            ((good, other), "other (KMNIST)"),
            ((own, changed), "changed (mine)"),
            ((good, damaged), "damaged/result.json is not"),
            ((good, odd), "odd/result.json is not"),
            ((good, unfinished), "unfinished has no result.json"),
            ((self.folder / "nowhere",), "nowhere has no result.json"),
            ((good, good), "good have the same options and seed"),
            ((good, larger), "larger have the same options and other networks"),
            ((good, "--csv", good / "result.json" / "a.csv"), "--csv"),
            ((), "runs"),
        ):
            with self.subTest(said):
                self.assert_refused(compare.main, runs, said)
