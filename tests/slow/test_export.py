"""Exported programs: README's code runs them by torch alone, and they agree with the model."""

import os
import subprocess
import sys
import unittest
from importlib.util import find_spec
from unittest import mock

import torch
from test_readme import snippets
from tiny import InFolder, random_model, run_command, save_model

import export
from exporting.programs import Sample, programs

AFTERWARDS = """
encode, decode = (torch.export.load(f"model_{name}.pt2").module() for name in ("encode", "decode"))
for count in (2, 1):  # the same noise, the same images
    assert torch.equal(sample(torch.tensor([7] * count), noise[:count])[0], images[:count])
torch.save([noise, images, z, *encode(images), decode(z)], "found.pt")

import sys
import utils  # of the other project

assert not any(name in sys.modules for name in ("train_pl", "pytorch_lightning"))
"""


class TestExport(InFolder):
    def setUp(self):
        super().setUp()
        self.model = random_model(z_dim=2)  # the exporter goes through latents one by one
        self.checkpoint = save_model(self.model, self.folder / "small.ckpt")

    @torch.no_grad()
    def test_another_project_runs_them_with_torch_alone(self):
        project = self.folder / "project"
        code, said, error = run_command(export.main, self.checkpoint, project / "model.pt2")
        self.assertEqual((code, error, len(said.splitlines())), (0, "", 3))
        (project / "utils.py").touch()
        code = snippets().get("In another project")  # README
        few = code.replace("2 * 32", "2 * 2")  # latents
        (project / "script.py").write_text(few + AFTERWARDS)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([sys.executable, "script.py"], cwd=project, env=env, check=True)
        noise, images, z, *found = torch.load(project / "found.pt")
        self.assertEqual((images.shape, images.dtype), ((3, 1, 28, 28), torch.int64))
        own = [*self.model.encoder(images), self.model.decoder(z).softmax(dim=1)]
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        sevens = Sample(self.model)(torch.tensor([7, 7, 7]), noise)
        torch.testing.assert_close([images, z], [*sevens], rtol=0, atol=1e-5)

    @unittest.skipUnless(all(map(find_spec, export.ONNX)), "pip install onnxscript onnxruntime")
    def test_onnx_files_are_written_where_they_agree_with_the_model(self):
        some = programs(self.model)
        del some["decode"]  # a part of sample
        with mock.patch.object(export, "programs", return_value=some):
            code, said, _ = run_command(export.main, self.checkpoint, self.folder / "model.onnx")
        self.assertEqual((code, len(said.splitlines())), (0, 2))
        self.assertEqual(len([*self.folder.glob("model_*.onnx")]), 2)
