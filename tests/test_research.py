"""docs/research.md holds: its models train, and every later command is right about them."""

import json
import sys
import tempfile
import unittest
from argparse import Namespace
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import torch
from test_readme import ROOT, blocks
from tiny import InFolder, few, run_command, save_model, tiny_data, undrawn, without_pictures
from torch import Tensor, nn

import compare
import compress
import evaluate
import explore
import fmnist
import sample
import train_pl
from exporting.programs import Sample, programs
from inputs.command_line import InputError, WorkError
from judging.bounds import image_bounds
from runs.from_checkpoint import maker_of, named_in_file
from train_pl import load_model, train_vae
from utils import KLD, elbo_to_bpd, importance_weighted_bpd
from vae import VAE, check_logits

TINY = {"z_dim": 2, "batch_size": 60, "epochs": 1, "accelerator": "cpu"}
SMALL = {**TINY, "num_filters": 2}
PAGE = ROOT / "docs" / "research.md"


def train(folder: Path, model: object = VAE, **options: object) -> dict[str, object]:
    """The result.json of a tiny run without pictures."""
    before = {*folder.glob("version_*")}
    with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
        args = Namespace(log_dir=str(folder), **options)
        train_vae(args, model=model, data=args.__dict__.pop("data", None))
    (run,) = {*folder.glob("version_*")} - before
    return {**json.loads((run / "result.json").read_text()), "run": run}


def at(step: int) -> mock.Mock:
    """A trainer after so many of 100 steps."""
    return mock.Mock(estimated_stepping_batches=100, global_step=step, callbacks=[])


class TestResearch(InFolder):
    """Its examples are trained once each; the tests look at these runs."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.shared = Path(temporary.name)
        cls.file = cls.shared / "research.py"
        cls.file.write_text("\n".join(blocks(PAGE.read_text(), "python")))
        cls.addClassCleanup(sys.path.remove, str(cls.shared.resolve()))
        cls.logistic, cls.mixture, mlp = map(cls.named, ("Logistic", "Mixture", "mlp"))
        cls.addClassCleanup(sys.modules.pop, "research")
        torch.manual_seed(0)
        cls.object, unnamed = cls.mixture(num_filters=2, z_dim=2), fmnist.MNISTDataModule()
        unnamed.hparams.clear()  # as of a data module that saves none
        cls.squares, how = cls.named("toy_images")(), {"batch_size": 400, "seed": 5}
        cls.runs = {
            "Logistic": train(cls.shared, cls.logistic, **SMALL),
            "Mixture": train(cls.shared, cls.object, data=unnamed, **TINY),
            "mlp": train(cls.shared, mlp, data=cls.squares, **{**TINY, **how}),
        }

    @classmethod
    def named(cls, name: str) -> object:
        return named_in_file(f"{cls.file}:{name}")

    def interrupted(self, said: str, **options: object) -> Path:
        """The folder of a Logistic's run that ends in its first step and then says this."""
        stop = mock.patch.object(VAE, "on_train_batch_end", side_effect=WorkError("enough"))
        with self.assertRaisesRegex(WorkError, said), stop:
            train(self.folder, self.logistic, **SMALL, **options)
        return self.folder / "version_0"

    def test_every_model_trains_and_what_is_reported_is_the_elbo_of_its_best_epoch(self):
        for name, result in self.runs.items():
            images = (self.squares.test if name == "mlp" else few(train=False)).images
            with self.subTest(name), torch.no_grad():
                model = load_model(result["run"], self.named(name))
                kl = KLD(*model.encoder(images.long())).mean().item()
                self.assertAlmostEqual(result["test_regularization_loss"], kl, delta=1e-4 * kl)
                parts = result["test_reconstruction_loss"] + result["test_regularization_loss"]
                self.assertAlmostEqual(result["test_ELBO"], parts, delta=1e-3)
                self.assertLess(result["test_bpd"], 4)
                iw = result["test_importance_weighted_bpd"]
                self.assertLess(iw, result["test_bpd"] + 0.02)
                bounds = image_bounds(model, images, num_samples=8)
                judged = elbo_to_bpd(bounds["negative_elbo"].mean(), images.shape).item()
                self.assertAlmostEqual(judged, result["test_bpd"], delta=0.02)

    def test_objectives_reach_the_networks_and_nothing_else(self):
        torch.manual_seed(0)
        imgs = few(train=False).images[:8].long()
        for name in ("FreeBits", "IWAE", "Cyclical"):
            model = self.named(name)(num_filters=2, z_dim=2)
            model._trainer = at(5)
            for weights in model.parameters():
                nn.init.normal_(weights, std=0.1)
            loss = model.objective(imgs, *model.elbo_terms(imgs))
            self.assertEqual(loss.shape, ())
            loss.backward()
            for part in (model.encoder, model.decoder):
                self.assertTrue(all(w.grad.abs().sum() > 0 for w in part.parameters()), name)
            self.assertTrue(all(w.grad is None for w in model.prior.parameters()), name)

    def test_a_run_that_is_stopped_names_its_model_and_ends_as_its_seed_does_bit_for_bit(self):
        torch.manual_seed(1)  # another state of the process than the first run began with
        run = self.interrupted(r"--resume \S+_0 --model \S*research.py:Logistic$")
        model = ("--model", f"{self.file}:Logistic")
        with tiny_data(), without_pictures():
            for more, ending in (((), (2, "--model research.py:Logistic")), (model, (0, ""))):
                code, _, error = run_command(train_pl.main, "--resume", run, *more)
                self.assertEqual((code, ending[1] in error), (ending[0], True), error)
        runs = self.runs["Logistic"]["run"], run
        weights = (load_model(each, self.logistic).state_dict().values() for each in runs)
        for one, other in zip(*weights, strict=True):
            self.assertTrue(torch.equal(one, other))
        with self.assertRaisesRegex(InputError, "seed: leave one out"):
            compare.compare(runs)

    def test_the_weights_of_an_object_are_not_the_seeds_and_it_is_trained_once(self):
        result = self.runs["Mixture"]
        self.assertEqual((result["seeded"], self.runs["Logistic"]["seeded"]), (False, True))
        self.assertEqual(result["trained_on"], {"dataset": "MNISTDataModule"})
        self.assertEqual([row["runs"] for row in compare.compare([result["run"]])], [1])
        with self.assertRaisesRegex(InputError, "leave one out"):
            compare.compare([result["run"]] * 2)
        with self.assertRaisesRegex(InputError, f"trained in .*{result['run'].name}"):
            train(self.folder, self.object, **TINY)

    def test_what_a_caller_brings_along_is_to_be_given_again(self):
        said = r"train_vae\(Namespace\(resume='\S+version_0'\), ...\), as before$"
        run = self.interrupted(said, data=self.named("toy_images")())
        words = ("--resume", run, "--model", f"{self.file}:Logistic")
        with tiny_data():
            self.assert_refused(train_pl.main, words, "began with 'squares': give")
            with self.assertRaisesRegex(InputError, r"\(MNIST\) are not .* with \(squares\)"):
                others = fmnist.MNISTDataModule()
                train_vae(Namespace(resume=run), model=self.logistic, data=others)

    def test_no_file_is_read_for_a_model_of_other_grey_levels_or_of_images_from_python(self):
        record = {"datamodule_hyper_parameters": {"dataset": "eight", "bits": 3}}
        eight = save_model(VAE(2, 2, num_levels=8), self.folder / "eight.ckpt", **record)
        output = ("--output", self.folder / "judged.png")
        for main, words, said in (
            (evaluate.main, (eight, "--dataset", "MNIST"), "images in 3 bits"),
            (sample.main, (eight, "--from", "a.png", "--to", "b.png"), "images in 3 bits"),
            (evaluate.main, (self.runs["mlp"]["run"], "--model", f"{self.file}:mlp"), "squares"),
        ):
            self.assert_refused(main, (*words, *output), said)

    def test_only_what_is_no_script_at_work_is_named_to_be_imported(self):
        self.assertRegex(maker_of(self.logistic), r"research.py:Logistic$")
        self.assertIsNone(maker_of(type("Linear", (VAE,), {"__module__": "__main__"})))

    def test_hyperparameters_that_no_checkpoint_can_hold_are_refused_before_the_run(self):
        class Activated(VAE):
            def __init__(self, activation: type = nn.Tanh, **options):
                super().__init__(**options)

        data = self.named("toy_images")()
        data.save_hyperparameters({"where": self.folder})
        for wrong, said in (({"model": Activated}, "activation"), ({"data": data}, "where")):
            with self.assertRaisesRegex(InputError, f"hyperparameter {said} is a .*ignore="):
                train(self.folder, **TINY, **wrong)
        self.assertEqual([*self.folder.iterdir()], [])

    def test_commands_ask_for_the_model_and_work_with_it(self):
        run, model = self.runs["Logistic"]["run"], ("--model", f"{self.file}:Logistic")
        sevens = ("--label", 7, "--num", 4, "--output", self.folder / "sevens.npy")
        for more in ((), ("--model", f"{self.file}:mlp")):
            give = "give --model research.py:Logistic"
            self.assert_refused(sample.main, (run, *sevens, *more), give)
        few = ("--limit", 20, "--iwae_samples", 2, "--output", self.folder / "judged")
        no_figures = mock.patch.object(evaluate, "model_figures", return_value={})
        with tiny_data(), undrawn(), no_figures:
            self.assert_refused(explore.main, (run, *model), "cannot compute LogisticDecoder")
            for main, words in ((sample.main, sevens), (evaluate.main, few)):
                code, _, error = run_command(main, run, *model, *words)
                self.assertEqual(code, 0, error)
        judged = json.loads((self.folder / "judged" / "metrics.json").read_text())
        bpd = self.runs["Logistic"]["test_bpd"]
        self.assertAlmostEqual(judged["negative_elbo_bpd"]["mean"], bpd, delta=0.1 * bpd)
        with self.assertRaisesRegex(InputError, "has a research.py:Encoder as encoder: .*--model"):
            load_model(self.runs["mlp"]["run"])

    def test_exported_programs_draw_from_own_likelihoods_and_priors(self):
        for name in ("Logistic", "Mixture"):
            model = load_model(self.runs[name]["run"], self.named(name))
            torch.manual_seed(0)
            noise, labels = torch.randn(300, 2 * 2 + 784), torch.arange(300) % 10
            drawn, z = programs(model)["sample"](labels, noise)
            self.assertEqual(drawn.shape, (300, 1, 28, 28))
            apart = (drawn / 15 - model.mean_image(z)).mean(dim=0).abs().mean().item()
            self.assertLess(apart, 0.03)
            expected = model.prior.sample(3000, labels.repeat(10), model.hparams.temperature)
            torch.testing.assert_close(z.mean(dim=0), expected.mean(dim=0), atol=0.2, rtol=0)
            with self.assertRaisesRegex(InputError, "archive"):
                compress.encode(few(train=False).images[:2].numpy(), model)

    def test_the_mixtures_steps_are_its_density(self):
        prior = self.mixture(num_filters=2, z_dim=3).prior
        for weights in prior.parameters():
            nn.init.normal_(weights)
        z, labels = torch.randn(4, 3), torch.tensor([0, 3, 3, 9])
        steps, sent, total = prior.autoregressive_steps(labels), None, 0
        for i in range(3):
            log_weights, means, log_stds = steps.send(sent)
            each = torch.distributions.Normal(means, log_stds.exp()).log_prob(z[:, [i]])
            total, sent = total + (log_weights + each).logsumexp(dim=1), z[:, i]
        torch.testing.assert_close(total, prior.log_prob(z, labels))
        of_classes = [prior.log_prob(z, torch.full((4,), y)).exp() for y in range(10)]
        torch.testing.assert_close(prior.log_prob(z).exp(), torch.stack(of_classes).mean(dim=0))

    def test_images_of_any_source_are_trained_on_with_the_runs_options(self):
        result, data = self.runs["mlp"], self.squares
        self.assertIsInstance(data, fmnist.ImagesDataModule)
        self.assertEqual(result["trained_on"], {"dataset": "squares", "bits": 4})
        self.assertEqual(result["options"]["dataset"], "squares")
        self.assertEqual((data.batch_size, data.seed), (400, 5))


class TestRefused(unittest.TestCase):
    """What is wrong with a model of one's own is said before a run has a folder."""

    def assert_refused(self, model: object, *said: str, **options: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(InputError) as refused:
                train(Path(folder), model, **options)
            self.assertEqual([*Path(folder).iterdir()], [])
        for words in ("model", *said):
            self.assertIn(words, str(refused.exception))
        self.assertEqual(len(str(refused.exception).splitlines()), 1)

    def test_a_decoder_of_other_levels_or_another_size_by_the_shape_of_its_logits(self):
        class Sized(VAE):
            def __init__(self, channels: int, padding: int):
                small = nn.Linear(2, channels * 784), nn.Unflatten(1, (channels, 28, 28))
                padded = nn.Sequential(*small, nn.ZeroPad2d(padding))
                super().__init__(2, 2, decoder=padded)

        self.assert_refused(lambda: Sized(1, 0), "logits", "[1, 16, H, W]", "[1, 1, 28, 28]")
        self.assert_refused(lambda: Sized(16, 1), "logits", "28, 28]", "[1, 16, 30, 30]")

    def test_what_is_reported_cannot_be_another_loss(self):
        class Free(VAE):
            def elbo_terms(self, imgs: Tensor) -> tuple[Tensor, ...]:
                L_rec, L_reg, *more = super().elbo_terms(imgs)
                return L_rec, L_reg.clamp(min=120), *more

        self.assert_refused(Free, "`objective`", "`log_px`")

    def test_a_prior_without_what_a_run_needs_by_the_name_of_the_member(self):
        class Bare(nn.Module):
            z_dim, num_classes = 2, 10

        self.assert_refused(lambda: VAE(2, 2, prior=Bare()), "prior's log_prob", "Bare", "prior.py")

    def test_an_option_that_a_class_does_not_take(self):
        class Fixed(VAE):
            def __init__(self):
                super().__init__(2, 2)

        self.assert_refused(Fixed, "--lr", "0.0022", lr=1e-3)
        self.assert_refused(Fixed, "VAE(num_levels=2", bits=1)

    def test_commands_that_need_more_say_of_what(self):
        class Own(VAE):
            def log_px(self, z: Tensor, imgs: Tensor) -> Tensor:
                return super().log_px(z, imgs)

        with self.assertRaisesRegex(InputError, "archives need .* logits .* Own has a log_px"):
            check_logits(Own(2, 2), "archives")
        model = VAE(2, 2)
        model.prior = nn.Identity()
        with self.assertRaisesRegex(InputError, "autoregressive_steps, which Identity lacks"):
            Sample(model)

    def test_a_name_that_is_in_no_file(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "utils.py").touch()
        (folder / "mine_alone.py").write_text("Model = nothing_of_this_name")
        for text, *said in (
            ("nowhere.py:Model", "file"),
            ("Model", "file"),
            (f"{folder / 'utils.py'}:Model", "rename"),
            (f"{folder / 'mine_alone.py'}:Model", "nothing_of_this_name", "python"),
        ):
            code, _, error = run_command(train_pl.main, "--model", text)
            self.assertEqual(code, 2)
            for words in ("argument --model", *said):
                self.assertIn(words, error)


class TestBetaWarmup(unittest.TestCase):
    def test_the_weight_of_the_kl_rises_from_zero_over_its_share_of_the_steps(self):
        imgs, terms = torch.zeros(2, 1, 28, 28), (torch.zeros(2), torch.ones(2), *3 * [None])
        model = VAE(2, 2, beta=4, beta_warmup=0.1)
        for step, weight in ((0, 0), (5, 2), (10, 4), (100, 4)):
            model._trainer = at(step)
            expected = elbo_to_bpd(torch.tensor(float(weight)), imgs.shape)
            torch.testing.assert_close(model.objective(imgs, *terms), expected)


class TestImportanceWeighted(unittest.TestCase):
    def test_its_gradients_are_those_of_the_bound(self):
        torch.manual_seed(0)
        imgs, noise = torch.randint(0, 4, (3, 1, 2, 2)), torch.randn(5, 3, 2, dtype=torch.double)
        weight = torch.randn(2, 16, dtype=torch.double, requires_grad=True)

        def bound(mean: Tensor, log_std: Tensor, weight: Tensor) -> Tensor:
            def log_px(z: Tensor, imgs: Tensor) -> Tensor:
                levels = (z @ weight).view(-1, 4, 2, 2).log_softmax(dim=1)
                return levels.gather(1, imgs).flatten(1).sum(dim=1)

            return importance_weighted_bpd(log_px, imgs, mean, log_std, noise.split(2))

        posterior = torch.randn(2, 3, 2, dtype=torch.double, requires_grad=True).unbind()
        self.assertTrue(torch.autograd.gradcheck(bound, (*posterior, weight)))
