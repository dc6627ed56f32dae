"""The command that writes the page, and what it takes from a run."""

import json
import re
import shutil
from pathlib import Path
from unittest import mock

import torch
from tiny import InFolder, finished_run, run_command, tiny_data

import explore
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
    def test_bad_input_ends_with_one_line_that_names_it(self):
        damaged, page = self.folder / "damaged.ckpt", self.folder / "page.html"
        mine, other = self.folder / "mine.html", self.folder / "other.ckpt"
        mine.write_text("<html>a page of somebody's own</html>")
        damaged.write_bytes(PRETRAINED.read_bytes()[:5000])
        kmnist = torch.load(PRETRAINED, weights_only=True)
        kmnist["datamodule_hyper_parameters"] = {"dataset": "KMNIST"}
        torch.save(kmnist, other)
        with tiny_data(), mock.patch.dict("os.environ", https_proxy="http://127.0.0.1:9"):
            for line, argv in (
                ("damaged.ckpt", (damaged, "--output", page)),
                ("none.ckpt", (self.folder / "none.ckpt", "--output", page)),
                ("--output", ("--output", damaged / "page.html")),
                ("mine.html is a file of yours", ("--output", mine)),
                (".html", ("--output", damaged)),
                ("--dataset", ("--dataset", "EMNIST")),
                ("nowhere", ("--data_dir", self.folder / "nowhere", "--output", page)),
                ("KMNIST and MNIST", (PRETRAINED, other, "--output", page)),
            ):
                with self.subTest(line):
                    self.assert_refused(explore.main, argv, line)
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
    def test_a_run_keeps_its_networks_on_the_way_at_the_precision_of_half_its_own(self):
        run, page = self.folder / "run", self.folder / "page.html"
        shutil.copytree(finished_run().folder, run)
        with tiny_data():
            self.assertEqual(run_command(explore.main, run, "--output", page)[0], 0)
        self.assertEqual(page.read_text().count('"epoch":'), 7)
        model = load_model(run)
        epochs = kept_epochs(run, model)  # of 5 steps
        self.assertEqual([round(5 * epoch) for epoch, _ in epochs], [0, 1, 2, 5, 8, 10, 15])
        weights = torch.load(run / "checkpoints" / LAST, weights_only=True)["state_dict"]
        last = epochs[-1][1].state_dict()
        for name in (name for name in weights if name.startswith(("encoder", "decoder"))):
            torch.testing.assert_close(last[name], weights[name].half().float(), atol=0, rtol=0)
        first = "decoder.net.0.weight"
        self.assertFalse(torch.equal(last[first], weights[first]))  # the run's are not rounded
        (run / "epochs" / "epoch_1.000.pt").write_bytes(b"damaged")
        with self.assertRaisesRegex(InputError, r"epoch_1\.000\.pt"):
            kept_epochs(run, model)
        (run / "epochs" / "epoch_1.000.pt").unlink()
        with self.assertRaisesRegex(InputError, "not of this run's model"):
            kept_epochs(run, VAE(num_filters=3, z_dim=2))
