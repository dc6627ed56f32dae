"""The page to play with: its numbers are the model's, and what it promises works in a browser."""

import base64
import json
import re
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import browser
import numpy as np
import torch
from browser import Browser
from tiny import InFolder, tiny_data
from torch import nn

import explore
import fmnist
from cnn_encoder_decoder import ResidualBlock
from prior import LatentPrior
from train_pl import PRETRAINED, VAE, load_model

needs_browser = unittest.skipUnless(
    browser.FOUND, f"no browser: none of {', '.join(browser.NAMES)} is installed"
)


def random_model(z_dim: int, num_filters: int = 2) -> VAE:
    """A small model without a learned prior; all else is random, and cannot be left out."""
    model = VAE(num_filters, z_dim).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def random_prior(z_dim: int) -> LatentPrior:
    prior = LatentPrior(z_dim, width=30, num_components=3).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in prior.parameters():
        scale = 1 / parameter.shape[-1] ** 0.5
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return prior


def test_images() -> fmnist.DiscreteImages:
    """So few that the figures' means are soon computed, but two of every class."""
    fmnist.prepare()
    return fmnist.load(train=False).subset(torch.arange(100))


class TestWritingThePage(InFolder):
    def refusal(self, *argv: object) -> str:
        with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
            explore.main([str(argument) for argument in argv])
        self.assertEqual(stop.exception.code, 2)
        self.assertEqual(len(error.getvalue().splitlines()), 1, error.getvalue())
        return error.getvalue()

    def test_bad_input_ends_with_one_line_that_names_it(self):
        damaged = self.folder / "damaged.ckpt"
        damaged.write_bytes(PRETRAINED.read_bytes()[:5000])
        page = self.folder / "page.html"
        self.assertIn("damaged.ckpt", self.refusal(damaged, "--output", page))
        self.assertIn("none.ckpt", self.refusal(self.folder / "none.ckpt", "--output", page))
        inside_a_file = damaged / "page.html"
        self.assertIn("--output", self.refusal("--output", inside_a_file))
        self.assertIn(".html", self.refusal("--output", damaged))
        self.assertIn("--dataset", self.refusal("--dataset", "EMNIST"))
        nowhere = self.folder / "nowhere"
        with mock.patch.dict("os.environ", https_proxy="http://127.0.0.1:9"):
            self.assertIn("nowhere", self.refusal("--data_dir", nowhere, "--output", page))
        self.assertFalse(page.exists())

    def test_a_model_without_a_learned_prior_is_written_and_the_output_says_so(self):
        checkpoint, page = self.folder / "old.ckpt", self.folder / "new" / "page.html"
        old = torch.load(PRETRAINED, weights_only=True)
        for name in [name for name in old["state_dict"] if name.startswith("prior.")]:
            del old["state_dict"][name]
        torch.save(old, checkpoint)
        with redirect_stdout(StringIO()) as output, tiny_data():
            explore.main([str(checkpoint), "--output", str(page)])
        self.assertIn("no learned prior", output.getvalue())
        self.assertIn(page.as_uri(), output.getvalue())
        self.assertIn('"prior":null', page.read_text())

    def test_layers_that_the_page_does_not_have_are_refused_by_name(self):
        class Other(nn.Linear):
            pass

        for layer in (
            nn.Dropout(),
            Other(1, 1),
            nn.Conv2d(2, 2, 3, groups=2),
            nn.Conv2d(1, 1, 3, dilation=2),
            nn.Conv2d(1, 1, 3, padding="same"),
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(1, 1, 3, stride=2, output_padding=1),
            nn.Flatten(2),
            nn.Unflatten(1, (2, 2)),
        ):
            with (
                self.subTest(layer=layer),
                self.assertRaisesRegex(fmnist.InputError, re.escape(type(layer).__name__)),
            ):
                explore.describe(nn.Sequential(nn.SiLU(), layer), explore.Weights())

    def test_packed_weights_are_close_whatever_their_size(self):
        torch.manual_seed(0)
        sizes = (1e-20, 1e-3, 1.0, 1e20)
        tensors = [size * torch.randn(explore.BLOCK) for size in sizes] + [torch.zeros(7)]
        weights = explore.Weights()
        parts = [weights.add(tensor) for tensor in tensors]
        self.assertEqual(parts[-1], {"start": 4 * explore.BLOCK, "length": 7})
        packed = weights.packed()
        scales = np.frombuffer(base64.b64decode(packed["scales"]), "<f4")
        integers = np.frombuffer(base64.b64decode(packed["integers"]), "<i2")
        row = integers.reshape(-1, explore.BLOCK) * scales[:, None]
        for size, tensor, found in zip((*sizes, 1), tensors, row, strict=True):
            difference = np.abs(found[: len(tensor)] - tensor.numpy()).max()
            self.assertLess(difference, size * 1e-4)

    def test_the_page_of_the_shipped_model_is_small_and_names_no_other_place(self):
        page = explore.page(load_model(PRETRAINED), test_images(), "default.ckpt", "MNIST")
        self.assertLess(len(page.encode()), 3e6)
        self.assertNotIn("@@", page)
        self.assertNotRegex(page, r"https?://|\bsrc=|\bimport\b.*from|@import|url\(")


@needs_browser
class TestThePage(unittest.TestCase):
    """The page of the shipped model, with a prior of random weights, under a hostile name."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model = load_model(PRETRAINED)
        cls.model.prior = random_prior(cls.model.decoder.z_dim)
        cls.name = "</script><script>throw Error('inside')</script>"
        cls.file = Path(folder.name, "page.html")
        cls.file.write_text(explore.page(cls.model, test_images(), cls.name, "MNIST"))
        cls.browser = cls.enterClassContext(Browser(cls.file.as_uri()))

    def setUp(self):
        self.page = self.browser
        self.page.reload()
        self.page.until("$('tiles').lastElementChild.ariaLabel")

    def tearDown(self):
        self.assertEqual(self.page.errors, [])
        others = [url for url in self.page.requests if not url.startswith((self.uri, "data:"))]
        self.assertEqual(others, [])

    @property
    def uri(self) -> str:
        return self.file.as_uri()

    def pixels(self, canvas: str) -> list[int]:
        """The grey levels 0..255 of a canvas."""
        return self.page.run(f"""(() => {{
            const copy = new OffscreenCanvas(28, 28).getContext("2d", {{willReadFrequently: true}});
            copy.drawImage($("{canvas}"), 0, 0);
            return [...copy.getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
        }})()""")

    def assert_decoded(self, canvas: str, z: list[float], limit: int = 2) -> None:
        """The canvas shows the expected grey levels that PyTorch decodes."""
        logits = self.model.decoder(torch.tensor([z]).float())
        levels = (logits.softmax(1) * torch.arange(16).view(1, -1, 1, 1)).sum(1).flatten()
        difference = torch.tensor(self.pixels(canvas)) - levels.detach() * 17
        self.assertLessEqual(difference.abs().max().item(), limit)

    def current(self) -> list[float]:
        return self.page.run("[...now.z]")

    def shown(self) -> None:
        self.page.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def test_its_numbers_are_those_of_pytorch(self):
        result = self.page.run("selfTest()")
        self.assertTrue(result["passed"], result)
        self.assertEqual(result["inputs"], 20)
        self.assertLess(max(result[name] for name in ("encoder", "decoder", "prior")), 2e-2)
        self.assertGreater(min(result[name] for name in ("encoder", "decoder", "prior")), 0)
        self.assertLess(result["bpd"], 1e-3)

    def test_every_kind_of_layer_computes_what_pytorch_does_with_other_sizes_too(self):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 5, (5, 3), stride=(2, 1), padding=(1, 2), bias=False),
            ResidualBlock(5),
            nn.SiLU(),
            nn.ConvTranspose2d(5, 3, (3, 4), stride=(2, 3), padding=(1, 0)),
            nn.Flatten(),
            nn.Linear(3 * 9 * 43, 24),
            nn.SiLU(),
            nn.Unflatten(1, (2, 3, 4)),
            nn.Conv2d(2, 1, 1),
            nn.Flatten(),
        ).double()
        nn.init.normal_(net[1].net[-1].weight)
        x, weights = torch.randn(1, 2, 11, 12, dtype=torch.double), explore.Weights()
        layers = json.dumps(explore.describe(net, weights))
        data = x[0].permute(1, 2, 0).flatten().tolist()
        start = f"{{channels: 2, height: 11, width: 12, data: {data}}}"
        packed = json.dumps(weights.packed())
        script = f"[...run(withWeights({layers}, unpacked({packed})), {start})]"
        ours = torch.tensor([self.page.run(script)], dtype=torch.double)
        torch.testing.assert_close(ours, net(x), atol=1e-3, rtol=0)

    def test_its_check_finds_a_wrong_weight_in_each_network(self):
        for weights in (
            "MODEL.encoder[0].weight",
            "MODEL.decoder.at(-1).weight",
            "MODEL.prior.last.weight",
        ):
            with self.subTest(weights=weights):
                self.page.run(f"{weights}[3] += 1")
                self.assertFalse(self.page.run("selfTest()")["passed"])
                self.page.run(f"{weights}[3] -= 1")

    def test_it_tells_the_result_of_its_check(self):
        self.page.click("#check")
        self.page.until("$('checked').textContent.startsWith('The same')")

    def test_the_name_of_the_file_is_text_and_nothing_else(self):
        self.assertIn(self.name, self.page.run("$('about').textContent"))

    def test_a_slider_moves_its_latent_and_the_image(self):
        before = self.current()
        x, y = self.page.place("#sliders input", 0.25)
        for kind, across in (("mousePressed", 0), ("mouseMoved", 40), ("mouseReleased", 40)):
            self.page.mouse(kind, x + across, y)
        self.shown()
        after = self.current()
        moved = self.page.run("MODEL.typical.latents[0].index")
        changed = [d for d in range(len(after)) if after[d] != before[d]]
        self.assertEqual(changed, [moved])
        self.assert_decoded("image", after)
        value = after[moved]
        self.page.key("ArrowRight")
        self.shown()
        self.assertAlmostEqual(self.current()[moved], value + 0.01, places=6)

    def test_pixels_are_drawn_from_the_decoders_distribution(self):
        self.page.click("input[value=drawn]")
        self.shown()
        first = self.pixels("image")
        self.assertTrue(all(level % 17 == 0 for level in first))
        self.page.click("#redraw")
        self.shown()
        self.assertNotEqual(self.pixels("image"), first)
        draws = "Array.from({length: 400}, () => [...drawnLevels(l, random.uniforms(784))])"
        z, drawn = (
            self.current(),
            self.page.run(f"(() => {{const l = decode(now.z); return {draws}}})()"),
        )
        with torch.no_grad():
            probabilities = self.model.decoder(torch.tensor([z])).softmax(1).flatten(2)[0]
        levels = torch.arange(16.0).view(-1, 1)
        mean = (probabilities * levels).sum(0)
        std = ((probabilities * levels.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
        difference = torch.tensor(drawn).float().mean(0) - mean
        self.assertLess((difference.abs() - 5 * std / 400**0.5).max().item(), 0.05)

    def test_class_7_gives_24_new_images_and_a_click_takes_one_onto_the_sliders(self):
        self.page.click("#classes button:nth-child(9)")
        self.page.until("$('tiles').lastElementChild.ariaLabel.includes('a new 7')")
        self.assertEqual(self.page.run("$('tiles').children.length"), 24)
        pressed = "[...$('classes').children].filter((b) => b.ariaPressed === 'true')"
        self.assertEqual(self.page.run(f"{pressed}.map((b) => b.textContent)"), ["7"])
        self.page.click("#tiles button:nth-child(5)")
        self.shown()
        self.assertEqual(self.page.run("$('source').textContent"), "a new 7")
        self.assert_decoded("image", self.current())
        self.page.click("#classes button:last-child")
        self.page.until("$('tiles').lastElementChild.ariaLabel.includes('N(0, I)')")

    def test_draws_of_a_class_are_those_of_the_learned_prior(self):
        script = "Array.from({length: 3000}, () => [...drawPrior(3, random)])"
        z = torch.tensor(self.page.run(script), dtype=torch.float32)
        torch.manual_seed(0)
        truth = self.model.prior.sample(20_000, torch.full((20_000,), 3))
        self.assertLess(((z.mean(0) - truth.mean(0)).abs() / truth.std(0)).max().item(), 0.1)
        self.assertLess((z.std(0) / truth.std(0) - 1).abs().max().item(), 0.1)
        log_prob = self.page.run(f"logPrior({z[0].tolist()}, 3)")
        exact = self.model.prior.log_prob(z[:1], torch.tensor([3])).item()
        self.assertAlmostEqual(log_prob, exact, delta=2e-2)

    def test_a_drawing_is_centred_encoded_and_judged(self):
        self.page.click("#clear")
        self.page.drag("#paper", [(0.1, 0.1), (0.3, 0.1), (0.3, 0.12), (0.2, 0.5)])
        self.shown()
        levels = torch.tensor(self.pixels("seen")).view(28, 28) / 17
        rows, columns = levels.sum(1).nonzero(), levels.sum(0).nonzero()
        self.assertEqual(int(rows.max() - rows.min()) + 1, 20)
        self.assertLess(int(columns.max() - columns.min()) + 1, 20)
        for ink in (levels.sum(0), levels.sum(1)):
            centre = ((ink * torch.arange(28)).sum() / ink.sum()).item()
            self.assertAlmostEqual(centre, 14, delta=0.75)  # it is moved by whole pixels
        imgs = levels.long().view(1, 1, 28, 28)
        with torch.no_grad():
            mean, log_std = self.model.encoder(imgs)
            noise = torch.tensor([list(self.page.run("[...LOSS_NOISE]"))])
            logits = self.model.decoder(mean + log_std.exp() * noise)
        L_rec = explore.reconstruction_loss(logits, imgs)
        L_reg = explore.KLD(mean, log_std)
        bpd = explore.elbo_to_bpd(L_rec + L_reg, imgs.shape).item()
        told = {
            name: float(self.page.run(f"$('own-{name}').textContent"))
            for name in ("rec", "reg", "bpd")
        }
        self.assertAlmostEqual(told["rec"], L_rec.item(), delta=0.5)
        self.assertAlmostEqual(told["reg"], L_reg.item(), delta=0.1)
        self.assertAlmostEqual(told["bpd"], bpd, delta=1.5e-3)
        self.assertEqual(self.page.run("$('bpd').textContent"), f"{told['bpd']:.3f}")
        torch.testing.assert_close(torch.tensor(self.current()), mean[0], atol=5e-3, rtol=0)
        self.assert_decoded("again", self.current())
        self.page.click("#undo")
        self.shown()
        self.assertEqual(sum(self.pixels("seen")), 0)

    def test_the_keyboard_draws_too(self):
        self.page.click("#clear")
        self.page.run("$('paper').focus()")
        for key in (" ", *["ArrowDown"] * 5, " ", "ArrowLeft", "ArrowLeft"):
            self.page.key(key)
        self.shown()
        self.assertEqual(self.page.run("paper.strokes.map((stroke) => stroke.length)"), [6])
        self.assertGreater(sum(self.pixels("seen")), 0)

    def test_the_slider_between_two_goes_along_the_line_of_their_latents(self):
        self.page.click("#test-image")
        self.shown()
        a = self.current()
        self.page.click(".slot[data-keep=A]")
        self.page.click("#test-image")
        self.shown()
        b = self.current()
        self.page.click("#one [data-keep=B]")
        self.page.run("$('share').focus()")
        self.page.key("ArrowRight")
        self.shown()
        share = self.page.run("$('share').valueAsNumber")
        self.assertAlmostEqual(share, 0.51)
        line = [p + share * (q - p) for p, q in zip(a, b, strict=True)]
        torch.testing.assert_close(torch.tensor(self.current()), torch.tensor(line))
        self.assert_decoded("middle", line)
        self.page.click("#strip button:nth-child(10)")
        self.shown()
        torch.testing.assert_close(torch.tensor(self.current()), torch.tensor(b))

    def test_every_control_has_a_name_and_can_be_reached_by_keyboard(self):
        controls = "[...document.querySelectorAll('button, input, summary, a, canvas[tabindex]')]"
        labels = "[...c.labels ?? []].map((l) => l.textContent).join()"
        named = self.page.run(f"{controls}.map((c) => c.ariaLabel || c.textContent || {labels})")
        self.assertGreater(len(named), 60)
        self.assertTrue(all(named), named)
        self.page.run("document.body.focus()")
        reached = set()
        for _ in range(70):
            self.page.key("Tab")
            reached.add(self.page.run("document.activeElement.closest('section')?.id ?? 'page'"))
        self.assertEqual(reached, {"one", "new", "draw", "between", "page"})
        self.page.run("$('tiles').firstElementChild.focus()")
        self.page.key("ArrowDown")
        columns = self.page.run("[...$('tiles').children].indexOf(document.activeElement)")
        self.assertIn(columns, (6, 8))

    def test_nothing_moves_while_it_is_used_and_nothing_is_too_wide(self):
        self.page.run("""
            globalThis.shifts = [];
            const note = (list) => shifts.push(...list.getEntries().map((entry) => entry.value));
            new PerformanceObserver(note).observe({type: "layout-shift"});
        """)
        for size in (390, 1280, 1920):
            self.page.resize(size, 900)
            self.assertLessEqual(self.page.run("document.documentElement.scrollWidth"), size)
            self.shown()
            self.page.run("shifts.length = 0")
            self.page.run("newImages(1)")
            for script in ("takeTestImage()", "clearPaper()", "show(now.z.map(() => -3), 'x')"):
                self.page.run(script)
                self.shown()
                self.shown()
            self.assertLess(sum(self.page.run("shifts")), 0.001)


@needs_browser
class TestOtherModels(unittest.TestCase):
    def open(self, model: VAE) -> Browser:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name, "page.html")
        file.write_text(explore.page(model, test_images(), "other.ckpt", "MNIST"))
        return self.enterContext(Browser(file.as_uri(), width=900))

    def test_two_latents_give_a_map_and_a_click_on_it_decodes_there(self):
        page = self.open(random_model(z_dim=2))
        page.click("#map-image", 0.75, 0.9)
        z = page.run("[...now.z]")
        torch.testing.assert_close(torch.tensor(z), torch.tensor([1.5, -2.4]), atol=0.02, rtol=0)
        page.run("$('map-place').focus()")
        page.key("ArrowUp")
        self.assertAlmostEqual(page.run("now.z[1]"), z[1] + 0.05, places=6)
        self.assertTrue(page.run("selfTest()")["passed"])
        self.assertIn("N(0, I)", page.run("$('new-note').textContent"))
        self.assertEqual(page.errors, [])

    def test_one_latent_gives_a_line(self):
        page = self.open(random_model(z_dim=1))
        page.click("#map-image", 0.25)
        self.assertAlmostEqual(page.run("now.z[0]"), -1.5, delta=0.02)
        self.assertTrue(page.run("selfTest()")["passed"])
        self.assertEqual(page.errors, [])
