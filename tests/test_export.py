"""export.py: files that plain torch runs in another project, and that agree with the model."""

import sys
import unittest
from unittest import mock

import torch
from tiny import InFolder, random_model, run_command, save_model

import export
from exporting.programs import Sample, chosen, example


class TestCommand(InFolder):
    def setUp(self):
        super().setUp()
        self.model = random_model()
        self.checkpoint = save_model(self.model, self.folder / "small.ckpt")

    def test_bad_input_is_refused_in_one_line_with_nothing_written(self):
        damaged = self.folder / "damaged.ckpt"
        damaged.write_bytes(b"damaged")
        before = sorted(self.folder.iterdir())
        for arguments, said in (
            ((self.checkpoint,), "small.ckpt: give a name that ends with .pt2 or .onnx"),
            ((damaged, self.folder / "model.pt2"), "damaged.ckpt"),
            ((self.folder / "nothing.ckpt", self.folder / "model.pt2"), "nothing.ckpt"),
            ((self.checkpoint, damaged / "model.pt2"), "argument OUTPUT"),
        ):
            self.assert_refused(export.main, arguments, said)
        with mock.patch.dict(sys.modules, {"onnxscript": None}):
            arguments = self.checkpoint, self.folder / "model.onnx"
            self.assert_refused(export.main, arguments, "pip install onnxscript onnxruntime")
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_programs_that_are_not_the_model_are_not_written(self):
        def other(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            return [output + 1e-3 for output in self.model.encoder(inputs["images"])]

        output = self.folder / "model.pt2"
        with mock.patch.multiple(export, from_file=lambda *_: other, to_file=lambda *_: b""):
            code, _, error = run_command(export.main, self.checkpoint, output)
        self.assert_ends(
            (code, error), 1, "encode differs from the module that it was made of by 0.001"
        )
        self.assertFalse([*self.folder.glob("*.pt2")])


class TestPrograms(unittest.TestCase):
    def test_choices_have_the_probabilities(self):
        probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3]).view(1, 4, 1)
        noise = torch.randn(1, 1, 100_000, generator=torch.Generator().manual_seed(0))
        shares = chosen(probabilities, noise).flatten().bincount(minlength=4) / 100_000
        torch.testing.assert_close(shares, probabilities.flatten(), atol=0.005, rtol=0)
        self.assertEqual(shares[1], 0)

    @torch.no_grad()
    def test_the_noise_chooses_from_the_models_own_mixtures_and_pixels(self):
        for num_classes in (1, 3):
            model = random_model(num_classes=num_classes)
            labels, noise = example(model, 50)["sample"].values()
            images, z = Sample(model)(labels, noise)
            choices, steps, pixels = noise.unsqueeze(1).split([3, 3, 784], dim=2)
            log_weights, means, log_stds = model.prior.conditionals(z, labels)
            temperature = model.hparams.temperature
            weights = (log_weights / temperature**2).softmax(dim=2)
            k = chosen(weights.mT, choices).mT
            mean, std = means.gather(2, k), log_stds.gather(2, k).exp()
            expected = (mean + temperature * std * steps.mT).squeeze(2)
            torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)
            levels = chosen(model.decoder(z).softmax(dim=1).flatten(2), pixels)
            self.assertTrue(torch.equal(images.flatten(2), levels))
