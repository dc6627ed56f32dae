"""The command that writes the page, and what it takes from a run."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import torch
from tiny import InFolder, tiny_data, without_pictures

import explore
import train_pl
from explore import PLANE
from inputs.command_line import InputError
from page import contents
from page.layers import networks, weights_at
from pictures.epochs import kept_epochs
from runs.folders import LAST
from train_pl import PRETRAINED, VAE, load_model

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "explore.html"
MAKE = "python explore.py --output docs/explore.html"


class TestWritingThePage(InFolder):
    def refusal(self, *argv: object) -> str:
        with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
            explore.main([str(argument) for argument in argv])
        self.assertEqual(stop.exception.code, 2)
        self.assertEqual(len(error.getvalue().splitlines()), 1, error.getvalue())
        return error.getvalue()

    def test_bad_input_ends_with_one_line_that_names_it(self):
        damaged, page = self.folder / "damaged.ckpt", self.folder / "page.html"
        mine = self.folder / "mine.html"
        mine.write_text("<html>a page of somebody's own</html>")
        damaged.write_bytes(PRETRAINED.read_bytes()[:5000])
        other = torch.load(PRETRAINED, weights_only=True)
        other["datamodule_hyper_parameters"] = {"dataset": "KMNIST"}
        torch.save(other, self.folder / "other.ckpt")
        with tiny_data(), mock.patch.dict("os.environ", https_proxy="http://127.0.0.1:9"):
            for line, argv in (
                ("damaged.ckpt", (damaged, "--output", page)),
                ("none.ckpt", (self.folder / "none.ckpt", "--output", page)),
                ("--output", ("--output", damaged / "page.html")),
                ("mine.html is a file of yours", ("--output", mine)),
                (".html", ("--output", damaged)),
                ("--dataset", ("--dataset", "EMNIST")),
                ("nowhere", ("--data_dir", self.folder / "nowhere", "--output", page)),
                ("KMNIST and MNIST", (PRETRAINED, self.folder / "other.ckpt", "--output", page)),
            ):
                with self.subTest(line):
                    self.assertIn(line, self.refusal(*argv))
        self.assertFalse(page.exists())

    def test_the_committed_page_is_that_of_the_shipped_models_and_of_todays_files(self):
        page = COMMITTED.read_text(encoding="utf-8")
        known = json.loads(re.search('type="application/json">(.*?)</script>', page, re.DOTALL)[1])
        self.assertEqual(known["dataset"], "MNIST")
        for file, found in zip((PRETRAINED, PLANE), known["models"], strict=True):
            model = load_model(file)
            for name, part in networks(model).items():
                same = found[name] == json.loads(json.dumps(part))
                self.assertTrue(same, f"another model's {name}: {MAKE}")
            epochs = kept_epochs(file, model)
            kept = [(then["epoch"], then["weights"]) for then in found["epochs"]]
            same = kept == [(epoch, weights_at(then)) for epoch, then in epochs]
            self.assertTrue(same, f"other epochs: {MAKE}")
        remedy = f"page/ has changed: {MAKE}, then python -m unittest tests.slow.test_page"
        self.assertTrue(contents.page(known) == page, remedy)
        self.assertLessEqual(len(page.encode()), 5e6)
        self.assertNotIn("@@", page)
        # Nothing is loaded from elsewhere; links are for the reader.
        without_links = re.sub('<a href="https://arxiv.org/', "", page)
        self.assertNotRegex(without_links, r"https?://|\bsrc=|\bimport\b.*from|@import|url\(")


class TestKeptEpochs(InFolder):
    def test_a_run_keeps_its_networks_on_the_way_and_ends_as_one_that_does_not(self):
        small = ("--epochs", "2", "--z_dim", "2", "--num_filters", "2", "--batch_size", "15")
        for name, options in (("kept", ["--keep_epochs"]), ("alone", [])):
            with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
                train_pl.main([*small, *options, "--log_dir", str(self.folder / name)])
        kept, alone = (
            torch.load(self.folder / name / "version_0" / "checkpoints" / LAST, weights_only=True)
            for name in ("kept", "alone")
        )
        run, weights = self.folder / "kept" / "version_0", alone["state_dict"]
        torch.testing.assert_close(kept["state_dict"], weights, atol=0, rtol=0)
        page = self.folder / "page.html"
        with tiny_data(), redirect_stdout(StringIO()):
            explore.main([str(run), "--output", str(page)])
        self.assertEqual(page.read_text().count('"epoch":'), 7)
        model = load_model(run)
        epochs = kept_epochs(run, model)  # of 8 steps
        self.assertEqual([round(8 * epoch) for epoch, _ in epochs], [0, 1, 2, 4, 8, 12, 16])
        last = epochs[-1][1].state_dict()
        for name, value in weights.items():
            if name.startswith(("encoder", "decoder")):
                torch.testing.assert_close(last[name], value.half().float(), atol=0, rtol=0)
        self.assertFalse(torch.equal(last["decoder.net.0.weight"], weights["decoder.net.0.weight"]))
        (run / "epochs" / "epoch_1.000.pt").write_bytes(b"damaged")
        with self.assertRaisesRegex(InputError, r"epoch_1\.000\.pt"):
            kept_epochs(run, model)
        (run / "epochs" / "epoch_1.000.pt").unlink()
        with self.assertRaisesRegex(InputError, "not of this run's model"):
            kept_epochs(run, VAE(num_filters=3, z_dim=2))
