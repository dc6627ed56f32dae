"""The page to play with: its numbers are the model's, and what it promises works in a browser."""

import base64
import json
import re
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
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
from page import contents
from prior import LatentPrior
from train_pl import PRETRAINED, VAE, load_model
from utils import KLD, elbo_to_bpd, mean_image, reconstruction_loss

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "explore.html"
MAKE = "python explore.py --output docs/explore.html"
HOSTILE = "</script><script>throw Error('inside')</script>"  # a checkpoint's name
BROWSER = Browser()  # of all tests, as a start takes seconds

needs_browser = unittest.skipUnless(
    browser.FOUND, f"no browser: none of {', '.join(browser.NAMES)} is installed"
)


def setUpModule():
    if browser.FOUND:
        unittest.enterModuleContext(BROWSER)


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


def page_of(model: VAE, name: str = "other.ckpt") -> str:
    """A page with the mean figures of few images and the sliders' ends from few draws."""
    fmnist.prepare()
    data = fmnist.load(train=False).subset(torch.arange(100))  # two of every class are among them
    with mock.patch.object(contents, "NUM_DRAWS", 100):
        return contents.page(model, data, name, "MNIST")


@cache
def shipped_page() -> str:
    return page_of(load_model(PRETRAINED), HOSTILE)


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
                contents.describe(nn.Sequential(nn.SiLU(), layer), contents.Weights())

    def test_packed_weights_are_close_whatever_their_size(self):
        torch.manual_seed(0)
        sizes = (1e-20, 1e-3, 1.0, 1e20)
        tensors = [size * torch.randn(contents.BLOCK) for size in sizes] + [torch.zeros(7)]
        weights = contents.Weights()
        parts = [weights.add(tensor) for tensor in tensors]
        self.assertEqual(parts[-1], {"start": 4 * contents.BLOCK, "length": 7})
        packed = weights.packed()
        scales = np.frombuffer(base64.b64decode(packed["scales"]), "<f4")
        integers = np.frombuffer(base64.b64decode(packed["integers"]), "<i2")
        row = integers.reshape(-1, contents.BLOCK) * scales[:, None]
        for size, tensor, found in zip((*sizes, 1), tensors, row, strict=True):
            difference = np.abs(found[: len(tensor)] - tensor.numpy()).max()
            self.assertLess(difference, size * 1e-4)

    def test_the_page_of_the_shipped_model_is_small_and_names_no_other_place(self):
        page = shipped_page()
        self.assertLess(len(page.encode()), 3e6)
        self.assertNotIn("@@", page)
        self.assertNotRegex(page, r"https?://|\bsrc=|\bimport\b.*from|@import|url\(")

    @unittest.skipUnless(COMMITTED.exists(), f"{COMMITTED} is not there: {MAKE}")
    def test_the_committed_page_is_that_of_the_shipped_model_and_of_todays_files(self):
        page = COMMITTED.read_text(encoding="utf-8")
        known = json.loads(re.search('type="application/json">(.*?)</script>', page, re.DOTALL)[1])
        self.assertEqual((known["name"], known["dataset"]), (PRETRAINED.name, "MNIST"))
        for name, part in contents.networks(load_model(PRETRAINED)).items():
            same = known[name] == json.loads(json.dumps(part))
            self.assertTrue(same, f"another model's {name}: {MAKE}")
        self.assertTrue(contents.filled(known) == page, f"page/ has changed: {MAKE}")


def current() -> list[float]:
    return [float(value) for value in BROWSER.run("[...now.z]")]


def wait_for_frame() -> None:
    BROWSER.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def pixels(canvas: str) -> list[int]:
    """The grey levels 0..255 of a canvas, as soon as they are there."""
    wait_for_frame()
    return BROWSER.run(f"""(() => {{
        const copy = new OffscreenCanvas(28, 28).getContext("2d", {{willReadFrequently: true}});
        copy.drawImage($("{canvas}"), 0, 0);
        return [...copy.getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
    }})()""")


class InBrowser(unittest.TestCase):
    """Nothing may be on the console at the end of a test, and no request have left the file."""

    @classmethod
    def open(cls, page: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "page.html")
            file.write_text(page, encoding="utf-8")
            BROWSER.open(file.as_uri())
        BROWSER.requests.remove(file.as_uri())
        BROWSER.until("$('tiles').lastElementChild.ariaLabel")

    def tearDown(self):
        errors, requests = BROWSER.errors[:], BROWSER.requests[:]
        BROWSER.errors.clear()
        BROWSER.requests.clear()
        self.assertEqual(errors, [])
        self.assertEqual([url for url in requests if not url.startswith("data:")], [])


@needs_browser
class TestThePage(InBrowser):
    """The page of the shipped model, under a hostile name; opened once for all tests."""

    @classmethod
    def setUpClass(cls):
        cls.model = load_model(PRETRAINED)
        cls.open(shipped_page())

    def setUp(self):
        BROWSER.run("document.querySelector('input[value=expected]').click()")

    def assert_decoded(self, canvas: str, z: list[float], limit: int = 2) -> None:
        """The canvas shows the expected grey levels that PyTorch decodes."""
        with torch.no_grad():
            levels = 255 * mean_image(self.model.decoder(torch.tensor([z]))).flatten()
        difference = torch.tensor(pixels(canvas)) - levels
        self.assertLessEqual(difference.abs().max().item(), limit)

    def test_its_numbers_are_those_of_pytorch(self):
        result = BROWSER.run("selfTest()")
        self.assertTrue(result["passed"], result)
        self.assertEqual(result["inputs"], 20)
        parts = [result[name] for name in ("encoder", "decoder", "prior")]
        self.assertLess(max(parts), 2e-2)
        self.assertGreater(min(parts), 0)
        self.assertLess(result["bpd"], 1e-3)
        BROWSER.click("#check")
        BROWSER.until("$('checked').textContent.startsWith('The same')")

    def test_the_name_of_the_file_is_text_and_nothing_else(self):
        self.assertIn(HOSTILE, BROWSER.run("$('about').textContent"))

    def test_a_slider_moves_its_latent_and_the_image(self):
        before = current()
        x, y = BROWSER.place("#sliders input", 0.25)
        for kind, across in (("mousePressed", 0), ("mouseMoved", 40), ("mouseReleased", 40)):
            BROWSER.mouse(kind, x + across, y)
        after = current()
        moved = BROWSER.run("MODEL.typical.latents[0].index")
        changed = [d for d in range(len(after)) if after[d] != before[d]]
        self.assertEqual(changed, [moved])
        self.assert_decoded("image", after)
        BROWSER.key("ArrowRight")
        self.assertAlmostEqual(current()[moved], after[moved] + 0.01, places=6)

    def test_pixels_are_drawn_from_the_decoders_distribution(self):
        BROWSER.click("input[value=drawn]")
        first = pixels("image")
        self.assertTrue(all(level % 17 == 0 for level in first))
        BROWSER.click("#redraw")
        self.assertNotEqual(pixels("image"), first)
        many = "Array.from({length: 400}, () => [...drawnLevels(logits, random.uniforms(784))])"
        drawn = BROWSER.run(f"(() => {{const logits = decode(now.z); return {many}}})()")
        with torch.no_grad():
            probabilities = self.model.decoder(torch.tensor([current()])).softmax(1).flatten(2)[0]
        levels = torch.arange(16.0).view(-1, 1)
        mean = (probabilities * levels).sum(0)
        std = ((probabilities * levels.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
        difference = torch.tensor(drawn).float().mean(0) - mean
        self.assertLess((difference.abs() - 5 * std / 400**0.5).max().item(), 0.05)

    def test_class_7_gives_24_new_images_and_a_click_takes_one_onto_the_sliders(self):
        BROWSER.click("#classes button:nth-child(9)")
        BROWSER.until("$('tiles').lastElementChild.ariaLabel.includes('a new 7')")
        self.assertEqual(BROWSER.run("$('tiles').children.length"), 24)
        pressed = "[...$('classes').children].filter((b) => b.ariaPressed === 'true')"
        self.assertEqual(BROWSER.run(f"{pressed}.map((b) => b.textContent)"), ["7"])
        BROWSER.click("#tiles button:nth-child(5)")
        wait_for_frame()
        self.assertEqual(BROWSER.run("$('source').textContent"), "a new 7")
        self.assert_decoded("image", current())

    def test_the_plain_prior_shows_what_it_draws_and_says_why(self):
        BROWSER.click("#classes button:last-child")
        BROWSER.until("$('tiles').lastElementChild.ariaLabel.includes('N(0, I)')")
        lesson = "$('lessons').innerText"  # of what is visible
        self.assertIn("are no digits", BROWSER.run(lesson))
        BROWSER.click("#classes button:first-child")
        self.assertIn("learned prior", BROWSER.run(lesson))
        self.assertNotIn("are no digits", BROWSER.run(lesson))

    def test_a_drawing_is_centred_encoded_and_judged(self):
        BROWSER.click("#clear")
        BROWSER.drag("#paper", [(0.1, 0.1), (0.3, 0.1), (0.3, 0.12), (0.2, 0.5)])
        levels = torch.tensor(pixels("seen")).view(28, 28) / 17
        rows, columns = levels.sum(1).nonzero(), levels.sum(0).nonzero()
        self.assertEqual(int(rows.max() - rows.min()) + 1, 20)
        self.assertLess(int(columns.max() - columns.min()) + 1, 20)
        for ink in (levels.sum(0), levels.sum(1)):
            centre = ((ink * torch.arange(28)).sum() / ink.sum()).item()
            self.assertAlmostEqual(centre, 14, delta=0.75)  # it is moved by whole pixels
        imgs = levels.long().view(1, 1, 28, 28)
        with torch.no_grad():
            mean, log_std = self.model.encoder(imgs)
            noise = torch.tensor([BROWSER.run("[...LOSS_NOISE]")])
            logits = self.model.decoder(mean + log_std.exp() * noise)
        L_rec, L_reg = reconstruction_loss(logits, imgs), KLD(mean, log_std)
        bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape).item()
        told = {
            name: float(BROWSER.run(f"$('own-{name}').textContent"))
            for name in ("rec", "reg", "bpd")
        }
        self.assertAlmostEqual(told["rec"], L_rec.item(), delta=0.5)
        self.assertAlmostEqual(told["reg"], L_reg.item(), delta=0.1)
        self.assertAlmostEqual(told["bpd"], bpd, delta=1.5e-3)
        self.assertEqual(BROWSER.run("$('bpd').textContent"), f"{told['bpd']:.3f}")
        torch.testing.assert_close(torch.tensor(current()), mean[0], atol=5e-3, rtol=0)
        self.assert_decoded("again", current())
        BROWSER.click("#undo")
        self.assertEqual(sum(pixels("seen")), 0)

    def test_the_keyboard_draws_too(self):
        BROWSER.click("#clear")
        BROWSER.run("$('paper').focus()")
        for key in (" ", *["ArrowDown"] * 5, " ", "ArrowLeft", "ArrowLeft"):
            BROWSER.key(key)
        self.assertEqual(BROWSER.run("paper.strokes.map((stroke) => stroke.length)"), [6])
        self.assertGreater(sum(pixels("seen")), 0)

    def test_the_slider_between_two_goes_along_the_line_of_their_latents(self):
        ends = []
        for slot in "AB":
            BROWSER.click("#test-image")
            ends.append(torch.tensor(current()))
            BROWSER.click(f"[data-keep={slot}]")
        BROWSER.run("$('share').value = 0.5; $('share').focus()")
        BROWSER.key("ArrowRight")
        wait_for_frame()
        line = torch.lerp(*ends, 0.51)
        torch.testing.assert_close(torch.tensor(current()), line)
        self.assert_decoded("middle", line.tolist())
        BROWSER.click("#strip button:nth-child(10)")
        torch.testing.assert_close(torch.tensor(current()), ends[1])

    def test_every_control_has_a_name_and_is_reached_by_keyboard(self):
        BROWSER.run("$('more').open = true")
        self.addCleanup(BROWSER.run, "$('more').open = false")
        BROWSER.run("""
            globalThis.controls = [...document.querySelectorAll(
                "button, input:not([value=drawn]), summary, canvas[tabindex]"
            )].filter((c) => c.checkVisibility() && !c.disabled);
            globalThis.reached = new Set();
            addEventListener("focusin", (event) => reached.add(event.target));
        """)
        name = "(c) => c.ariaLabel || c.textContent || [...c.labels].map((l) => l.textContent)[0]"
        names = BROWSER.run(f"controls.map({name})")
        self.assertGreater(len(names), 80)
        self.assertTrue(all(names), names)
        by_tab = BROWSER.run("controls.filter((c) => c.tabIndex >= 0).length")
        for _ in range(by_tab + 3):
            BROWSER.key("Tab")
        for container in ("tiles", "strip"):
            BROWSER.run(f"$('{container}').firstElementChild.focus()")
            for _ in range(BROWSER.run(f"$('{container}').children.length - 1")):
                BROWSER.key("ArrowRight")
        missed = "controls.filter((c) => !reached.has(c)).map((c) => c.outerHTML)"
        self.assertEqual(BROWSER.run(missed), [])

    def test_nothing_moves_while_it_is_used_and_nothing_is_too_wide(self):
        self.addCleanup(BROWSER.screen)
        BROWSER.run("""
            globalThis.shifts = [];
            const note = (list) => shifts.push(...list.getEntries().map((entry) => entry.value));
            new PerformanceObserver(note).observe({type: "layout-shift"});
        """)
        for width in (390, 1280, 1920):
            BROWSER.screen(width, 900)
            self.assertLessEqual(BROWSER.run("document.documentElement.scrollWidth"), width)
            BROWSER.run("new Promise((done) => setTimeout(done, 300))")  # what the new width moved
            BROWSER.run("shifts.length = 0")
            for script in (
                *("newImages('unit')", "newImages(1)", "takeTestImage()", "clearPaper()"),
                *("show(now.z.map(() => -3), 'x')", "$('zero').click()"),
            ):
                BROWSER.run(script)
                wait_for_frame()
                wait_for_frame()
            # The words behind a number move with its width; a section that moves counts ten times.
            self.assertLess(sum(BROWSER.run("shifts")), 0.01, width)


@needs_browser
class TestOtherModels(InBrowser):
    def test_two_latents_give_a_map_and_a_click_on_it_decodes_there(self):
        model = random_model(z_dim=2)
        model.prior = random_prior(z_dim=2)
        self.open(page_of(model))
        lows, spans = (
            torch.tensor(BROWSER.run(f"axes.map(({{low, high}}) => {value})"))
            for value in ("low", "high - low")
        )
        BROWSER.click("#map-image", 0.75, 0.9)
        z = current()
        expected = lows + spans * torch.tensor([0.75, 0.1])
        torch.testing.assert_close(torch.tensor(z), expected, atol=0.02, rtol=0)
        BROWSER.run("$('map-place').focus()")
        BROWSER.key("ArrowUp")
        self.assertAlmostEqual(current()[1], z[1] + 0.05, places=6)
        self.check_draws(model)
        self.check_that_wrong_weights_are_found()

    def check_draws(self, model: VAE) -> None:
        """The page draws from the prior what `VAE.sample` draws."""
        script = "Array.from({length: 3000}, () => [...drawPrior(3, random)])"
        z = torch.tensor(BROWSER.run(script))
        torch.manual_seed(0)
        truth = model.prior.sample(20_000, torch.full((20_000,), 3), VAE().hparams.temperature)
        self.assertLess(((z.mean(0) - truth.mean(0)).abs() / truth.std(0)).max().item(), 0.1)
        self.assertLess((z.std(0) / truth.std(0) - 1).abs().max().item(), 0.07)

    def check_that_wrong_weights_are_found(self) -> None:
        self.assertTrue(BROWSER.run("selfTest()")["passed"])
        for weight in (
            *("MODEL.encoder[0].weight[3]", "MODEL.decoder.at(-1).weight[3]"),
            *("MODEL.prior.classes[3]", "MODEL.prior.last.weight[3]"),
        ):
            with self.subTest(weight=weight):
                BROWSER.run(f"globalThis.right = {weight}; {weight} += 1")
                self.assertFalse(BROWSER.run("selfTest()")["passed"])
                BROWSER.run(f"{weight} = right")

    def test_one_latent_gives_a_line_and_no_learned_prior_is_said(self):
        self.open(page_of(random_model(z_dim=1)))
        BROWSER.click("#map-image", 0.25)
        self.assertAlmostEqual(current()[0], -1.5, delta=0.02)
        self.assertTrue(BROWSER.run("selfTest()")["passed"])
        self.assertIn("no learned prior", BROWSER.run("$('lessons').innerText"))

    def test_every_kind_of_layer_computes_what_pytorch_does_with_other_sizes_too(self):
        self.open(page_of(random_model(z_dim=1)))
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
        x, weights = torch.randn(1, 2, 11, 12, dtype=torch.double), contents.Weights()
        layers = json.dumps(contents.describe(net, weights))
        data = x[0].permute(1, 2, 0).flatten().tolist()
        start = f"{{channels: 2, height: 11, width: 12, data: {data}}}"
        packed = json.dumps(weights.packed())
        script = f"[...run(withWeights({layers}, unpacked({packed})), {start})]"
        ours = torch.tensor([BROWSER.run(script)], dtype=torch.double)
        torch.testing.assert_close(ours, net(x), atol=1e-3, rtol=0)
