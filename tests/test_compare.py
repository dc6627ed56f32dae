"""compare.py: finished runs beside each other."""

import csv
import json
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import mean, stdev

from tiny import InFolder, tiny_data

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
    def run_of(
        self, name: str, bpd: float = 0.5, trained_on: dict | None = None, **options: object
    ) -> Path:
        """The folder of a run with these options."""
        folder = self.folder / name
        folder.mkdir()
        result = {**RESULT, "test_bpd": bpd, "options": {**RESULT["options"], **options}}
        result["trained_on"] = trained_on or RESULT["trained_on"]
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    def ending(self, *arguments: object) -> tuple[int, str]:
        """Exit code, and what was said."""
        with redirect_stdout(StringIO()) as said, redirect_stderr(said):
            try:
                compare.main([*map(str, arguments)])
            except SystemExit as stop:
                return stop.code, said.getvalue()
        return 0, said.getvalue()

    def test_a_row_is_the_mean_over_the_seeds_with_their_standard_deviation(self):
        runs = [self.run_of(f"a{seed}", bpd, seed=seed) for seed, bpd in enumerate((0.5, 0.6, 0.8))]
        runs.append(self.run_of("b", 0.7, beta=4.0))
        code, said = self.ending(*runs, "--csv", self.folder / "runs.csv")
        self.assertEqual(code, 0, said)
        header, first, second = (line.split("  ") for line in said.splitlines())
        self.assertEqual([word.strip() for word in header if word][:3], ["beta", "runs", "bpd"])
        self.assertEqual([word.strip() for word in first if word][:2], ["1.0", "3"])
        self.assertIn("0.6333 ± 0.1528", "  ".join(first))
        self.assertEqual([word.strip() for word in second if word][:3], ["4.0", "1", "0.7000"])
        self.assertIn("7,000,000", said)
        with open(self.folder / "runs.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["beta"] for row in rows], ["1.0", "4.0"])
        self.assertAlmostEqual(float(rows[0]["test_bpd"]), mean((0.5, 0.6, 0.8)))
        self.assertAlmostEqual(float(rows[0]["test_bpd_std"]), stdev((0.5, 0.6, 0.8)))
        self.assertEqual(rows[1]["test_bpd_std"], "")
        self.assertEqual(float(rows[0]["parameters"]), 1000)

    def test_models_that_differ_make_no_row_together_and_no_run_counts_twice(self):
        first, again, other = self.run_of("a"), self.run_of("b"), self.run_of("c", seed=1)
        file = other / "result.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"parameters": {"encoder": 5}}))
        for run, words in ((again, "same options and seed"), (other, "other networks")):
            code, said = self.ending(first, run)
            self.assertEqual((code, len(said.splitlines())), (2, 1))
            self.assertIn(words, said)

    def test_options_that_change_no_result_make_no_column(self):
        runs = self.run_of("a", progress_bar=True), self.run_of("b", seed=1, progress_bar=False)
        self.assertEqual(len(compare.compare(runs)), 1)
        self.assertNotIn("progress_bar", compare.compare(runs)[0])

    def test_real_runs_are_read(self):
        with tiny_data(), redirect_stdout(StringIO()):
            for seed in ("1", "2"):
                few = ("--num_filters", "2", "--z_dim", "2", "--epochs", "1", "--seed", seed)
                train_pl.main([*few, "--accelerator", "cpu", "--log_dir", str(self.folder)])
        (row,) = compare.compare([self.folder / "version_0", self.folder / "version_1"])
        self.assertEqual(
            row.keys(), {"runs", *compare.MEASURES} | {f"{m}_std" for m in compare.MEASURES}
        )
        self.assertTrue(0 < row["test_bpd"] < 8 and row["test_bpd_std"] > 0)
        model = train_pl.load_model(self.folder / "version_0")
        self.assertEqual(row["parameters"], sum(p.numel() for p in model.parameters()))
        result = json.loads((self.folder / "version_0" / "result.json").read_text())
        # The decoder's first layer and its last convolution are a part of its FLOPs.
        least = 2 * (2 * 4 * 49 + 28 * 28 * 16)
        self.assertGreater(result["flops_per_image"]["decoder"], least)
        self.assertEqual(row["flops_per_image"], sum(result["flops_per_image"].values()))

    def test_runs_that_cannot_be_compared_are_refused_in_one_line(self):
        good, other = self.run_of("good"), self.run_of("other", trained_on={"dataset": "KMNIST"})
        own, changed = (
            self.run_of(name, trained_on={"dataset": "mine", "digest": name})
            for name in ("own", "changed")
        )
        damaged = self.run_of("damaged")
        (damaged / "result.json").write_text('{"options": 3')
        odd = self.run_of("odd")
        (odd / "result.json").write_text('{"options": {}, "test_bpd": "much"}')
        unfinished = self.run_of("unfinished")
        (unfinished / "result.json").unlink()
        for runs, said in (
            ((good, other), "other (KMNIST)"),
            ((own, changed), "changed (mine)"),
            ((good, damaged), "damaged/result.json is not"),
            ((good, odd), "odd/result.json is not"),
            ((good, unfinished), "unfinished has no result.json"),
            ((self.folder / "nowhere",), "nowhere has no result.json"),
            ((good, good), "good have the same options and seed"),
            ((good, "--csv", good / "result.json" / "a.csv"), "--csv"),
            ((), "runs"),
        ):
            with self.subTest(said):
                code, line = self.ending(*runs)
                self.assertEqual((code, len(line.splitlines())), (2, 1), line)
                self.assertIn(said, line)


if __name__ == "__main__":
    unittest.main()
