"""What is exported of a model of docs/research.md, and Lightning's command line."""

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import forked
import tiny
import torch
from pytorch_lightning.cli import LightningCLI
from test_readme import ROOT, blocks
from tiny import InFolder, tiny_data

import export
from fmnist import MNISTDataModule
from train_pl import load_model
from vae import VAE


class TestResearch(InFolder):
    def test_what_export_writes_of_a_model_of_the_page_draws_images_without_its_class(self):
        code = "\n".join(blocks((ROOT / "docs" / "research.md").read_text(), "python"))
        (self.folder / "research.py").write_text(code)
        model = ("--model", "research.py:Logistic")
        small = ("--num_filters=2", "--z_dim=2", "--batch_size=60", "--epochs=1")
        for main, *words in (
            (tiny.main, *small),
            (export.main, "VAE_logs/version_0", "model.pt2"),
        ):
            code, _, complaints = forked.run(main, [*words, *model], cwd=self.folder)
            self.assertEqual(code, 0, complaints)
        program = torch.export.load(self.folder / "model_sample.pt2").module()
        images, _ = program(torch.tensor([7]), torch.randn(1, 2 * 2 + 784))
        self.assertEqual(images.shape, (1, 1, 28, 28))


class TestLightningCLI(InFolder):
    def test_it_trains_the_model_on_the_images_with_the_arguments_of_both_as_options(self):
        given = {"model.z_dim": 2, "model.num_filters": 2, "data.batch_size": 60}
        given |= {"trainer.max_epochs": 1, "trainer.accelerator": "cpu", "trainer.logger": "false"}
        given |= {"trainer.default_root_dir": self.folder, "trainer.enable_progress_bar": "false"}
        words = ["fit", *(f"--{name}={value}" for name, value in given.items())]
        with tiny_data(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            cli = LightningCLI(VAE, MNISTDataModule, args=words)
        self.assertEqual((cli.datamodule.batch_size, cli.model.prior.z_dim), (60, 2))
        loaded = load_model(cli.trainer.checkpoint_callback.best_model_path)
        for name, weights in loaded.state_dict().items():
            self.assertTrue(torch.equal(weights, cli.model.state_dict()[name]), name)
