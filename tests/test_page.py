"""The page to play with: its numbers are the model's, and what it promises works in a browser.

What needs a browser is driven by Playwright: pip install -r requirements-dev.txt, and Chromium.
"""

import base64
import json
import re
import shutil
import tempfile
import unittest
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import tiny  # noqa: F401  for the path of what is tested
import torch
from torch import nn

import fmnist
from cnn_encoder_decoder import ResidualBlock
from page import contents
from prior import LatentPrior
from train_pl import PRETRAINED, VAE, load_model
from utils import KLD, elbo_to_bpd, mean_image, reconstruction_loss

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium")
HOSTILE = "</script><script>throw Error('inside')</script>"  # a checkpoint's name
needs_browser = unittest.skipUnless(
    sync_playwright and CHROMIUM, "needs Chromium and pip install -r requirements-dev.txt"
)


def setUpModule():
    """One browser for all tests, as a start takes seconds."""
    global BROWSER
    if sync_playwright and CHROMIUM:
        driver = unittest.enterModuleContext(sync_playwright())
        quiet = ["--no-sandbox", "--disable-gpu"]
        BROWSER = driver.chromium.launch(executable_path=CHROMIUM, args=quiet)
        unittest.addModuleCleanup(BROWSER.close)


def random_model(z_dim: int, num_filters: int = 2) -> VAE:
    """A small model with all weights random, so that none can be left out."""
    model = VAE(num_filters, z_dim)
    model.prior = LatentPrior(z_dim, width=30, num_components=3)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 1 / parameter.shape[-1] ** 0.5 if name.startswith("prior") else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def page_of(model: VAE, name: str = "other.ckpt") -> str:
    """A page with the mean figures of few images and the sliders' ends from few draws."""
    fmnist.prepare()
    data = fmnist.load(train=False).subset(torch.arange(100))  # two of every class are among them
    with mock.patch.object(contents, "NUM_DRAWS", 100):
        return contents.page(model, data, name, "MNIST")


@cache
def shipped_page() -> str:
    return page_of(load_model(PRETRAINED), HOSTILE)


class TestNetworksAsThePageHasThem(unittest.TestCase):
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


class InBrowser(unittest.TestCase):
    """Nothing may be on the console at the end of a test, and no request have left the file."""

    @classmethod
    def open(cls, html: str, **screen: object) -> None:
        """Opens a page; cls.page is Playwright's."""
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        file = Path(folder, "page.html")
        file.write_text(html, encoding="utf-8")
        page = cls.page = BROWSER.new_page(**{"viewport": {"width": 1280, "height": 800}, **screen})
        cls.addClassCleanup(page.close)
        page.set_default_timeout(20_000)
        cls.complaints = []
        page.on("console", lambda said: cls.complaints.append(said.text))
        page.on("pageerror", lambda error: cls.complaints.append(str(error)))
        page.goto(file.as_uri())
        page.on("request", lambda asked: cls.complaints.append(asked.url))
        cls.until("$('tiles').lastElementChild.ariaLabel")

    @classmethod
    def until(cls, condition: str) -> None:
        """Waits until a JavaScript expression is true; Playwright's own way is against the CSP."""
        for _ in range(1000):
            if cls.page.evaluate(condition):
                return
            cls.page.wait_for_timeout(20)
        raise TimeoutError(condition)

    def run_js(self, script: str) -> object:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        return self.page.evaluate(script)

    def tearDown(self):
        complaints = self.complaints[:]
        self.complaints.clear()
        self.assertEqual(complaints, [])

    def current(self) -> list[float]:
        return [float(value) for value in self.run_js("[...now.z]")]

    def wait_for_frame(self) -> None:
        self.run_js("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def pixels(self, canvas: str) -> list[int]:
        """The grey levels 0..255 of a canvas, as soon as they are there."""
        self.wait_for_frame()
        return self.run_js(f"""(() => {{
            const copy = new OffscreenCanvas(28, 28).getContext("2d", {{willReadFrequently: true}});
            copy.drawImage($("{canvas}"), 0, 0);
            return [...copy.getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
        }})()""")

    def place(self, selector: str, across: float, down: float) -> tuple[float, float]:
        """Where in the window a place in an element is, which is first scrolled into view."""
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def drag(self, selector: str, places: list[tuple[float, float]]) -> None:
        """A stroke of the mouse from place to place in an element, both in 0..1."""
        self.page.mouse.move(*self.place(selector, *places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.place(selector, *place))
        self.page.mouse.up()


@needs_browser
class TestThePage(InBrowser):
    """The page of the shipped model, under a hostile name; opened once for all tests."""

    @classmethod
    def setUpClass(cls):
        cls.model = load_model(PRETRAINED)
        cls.open(shipped_page())

    def setUp(self):
        self.run_js("document.querySelector('input[value=expected]').click()")

    def assert_decoded(self, canvas: str, z: list[float], limit: int = 2) -> None:
        """The canvas shows the expected grey levels that PyTorch decodes."""
        with torch.no_grad():
            levels = 255 * mean_image(self.model.decoder(torch.tensor([z]))).flatten()
        difference = torch.tensor(self.pixels(canvas)) - levels
        self.assertLessEqual(difference.abs().max().item(), limit)

    def test_its_numbers_are_those_of_pytorch(self):
        result = self.run_js("selfTest()")
        self.assertTrue(result["passed"], result)
        self.assertEqual(result["inputs"], 20)
        parts = [result[name] for name in ("encoder", "decoder", "prior")]
        self.assertLess(max(parts), 2e-2)
        self.assertGreater(min(parts), 0)
        self.assertLess(result["bpd"], 1e-3)
        self.page.click("#check")
        self.until("$('checked').textContent.startsWith('The same')")

    def test_the_name_of_the_file_is_text_and_nothing_else(self):
        self.assertIn(HOSTILE, self.run_js("$('about').textContent"))

    def test_a_slider_moves_its_latent_and_the_image(self):
        before = self.current()
        self.drag("#sliders input", [(0.25, 0.5), (0.5, 0.5)])
        after = self.current()
        moved = self.run_js("MODEL.typical.latents[0].index")
        changed = [d for d in range(len(after)) if after[d] != before[d]]
        self.assertEqual(changed, [moved])
        self.assert_decoded("image", after)
        self.page.keyboard.press("ArrowRight")
        self.assertAlmostEqual(self.current()[moved], after[moved] + 0.01, places=6)

    def test_pixels_are_drawn_from_the_decoders_distribution(self):
        self.page.click("input[value=drawn]")
        first = self.pixels("image")
        self.assertTrue(all(level % 17 == 0 for level in first))
        self.page.click("#redraw")
        self.assertNotEqual(self.pixels("image"), first)
        many = "Array.from({length: 400}, () => [...drawnLevels(logits, random.uniforms(784))])"
        drawn = self.run_js(f"(() => {{const logits = decode(now.z); return {many}}})()")
        with torch.no_grad():
            probabilities = self.model.decoder(torch.tensor([self.current()]))[0]
        levels = torch.arange(16.0).view(-1, 1)
        probabilities = probabilities.softmax(0).flatten(1)
        mean = (probabilities * levels).sum(0)
        std = ((probabilities * levels.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
        difference = torch.tensor(drawn).float().mean(0) - mean
        self.assertLess((difference.abs() - 5 * std / 400**0.5).max().item(), 0.05)

    def test_class_7_gives_24_new_images_and_a_click_takes_one_onto_the_sliders(self):
        self.page.click("#classes button:nth-child(9)")
        self.until("$('tiles').lastElementChild.ariaLabel.includes('a new 7')")
        self.assertEqual(self.run_js("$('tiles').children.length"), 24)
        pressed = "[...$('classes').children].filter((b) => b.ariaPressed === 'true')"
        self.assertEqual(self.run_js(f"{pressed}.map((b) => b.textContent)"), ["7"])
        self.page.click("#tiles button:nth-child(5)")
        self.wait_for_frame()
        self.assertEqual(self.run_js("$('source').textContent"), "a new 7")
        self.assert_decoded("image", self.current())

    def test_the_plain_prior_shows_what_it_draws_and_says_why(self):
        self.page.click("#classes button:last-child")
        self.until("$('tiles').lastElementChild.ariaLabel.includes('N(0, I)')")
        lesson = "$('lessons').innerText"  # of what is visible
        self.assertIn("are no digits", self.run_js(lesson))
        self.page.click("#classes button:first-child")
        self.assertIn("learned prior", self.run_js(lesson))
        self.assertNotIn("are no digits", self.run_js(lesson))

    def test_a_drawing_is_centred_encoded_and_judged(self):
        self.page.click("#clear")
        self.drag("#paper", [(0.1, 0.1), (0.3, 0.1), (0.3, 0.12), (0.2, 0.5)])
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
            noise = torch.tensor([self.run_js("[...LOSS_NOISE]")])
            logits = self.model.decoder(mean + log_std.exp() * noise)
        L_rec, L_reg = reconstruction_loss(logits, imgs), KLD(mean, log_std)
        bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape).item()
        told = {
            name: float(self.run_js(f"$('own-{name}').textContent"))
            for name in ("rec", "reg", "bpd")
        }
        self.assertAlmostEqual(told["rec"], L_rec.item(), delta=0.5)
        self.assertAlmostEqual(told["reg"], L_reg.item(), delta=0.1)
        self.assertAlmostEqual(told["bpd"], bpd, delta=1.5e-3)
        self.assertEqual(self.run_js("$('bpd').textContent"), f"{told['bpd']:.3f}")
        torch.testing.assert_close(torch.tensor(self.current()), mean[0], atol=5e-3, rtol=0)
        self.assert_decoded("again", self.current())
        self.page.click("#undo")
        self.assertEqual(sum(self.pixels("seen")), 0)

    def test_the_keyboard_draws_too(self):
        self.page.click("#clear")
        self.run_js("$('paper').focus()")
        for key in (" ", *["ArrowDown"] * 5, " ", "ArrowLeft", "ArrowLeft"):
            self.page.keyboard.press(key)
        self.assertEqual(self.run_js("paper.strokes.map((stroke) => stroke.length)"), [6])
        self.assertGreater(sum(self.pixels("seen")), 0)

    def test_the_slider_between_two_goes_along_the_line_of_their_latents(self):
        ends = []
        for slot in "AB":
            self.page.click("#test-image")
            ends.append(torch.tensor(self.current()))
            self.page.click(f"[data-keep={slot}]")
        self.run_js("$('share').value = 0.5; $('share').focus()")
        self.page.keyboard.press("ArrowRight")
        self.wait_for_frame()
        line = torch.lerp(*ends, 0.51)
        torch.testing.assert_close(torch.tensor(self.current()), line)
        self.assert_decoded("middle", line.tolist())
        self.page.click("#strip button:nth-child(10)")
        torch.testing.assert_close(torch.tensor(self.current()), ends[1])

    def test_every_control_has_a_name_and_is_reached_by_keyboard(self):
        self.run_js("$('more').open = true")
        self.addCleanup(self.run_js, "$('more').open = false")
        self.run_js("""
            globalThis.controls = [...document.querySelectorAll(
                "button, input:not([value=drawn]), summary, canvas[tabindex]"
            )].filter((c) => c.checkVisibility() && !c.disabled);
            globalThis.reached = new Set();
            addEventListener("focusin", (event) => reached.add(event.target));
        """)
        name = "(c) => c.ariaLabel || c.textContent || [...c.labels].map((l) => l.textContent)[0]"
        names = self.run_js(f"controls.map({name})")
        self.assertGreater(len(names), 80)
        self.assertTrue(all(names), names)
        by_tab = self.run_js("controls.filter((c) => c.tabIndex >= 0).length")
        for _ in range(by_tab + 3):
            self.page.keyboard.press("Tab")
        for container in ("tiles", "strip"):
            self.run_js(f"$('{container}').firstElementChild.focus()")
            for _ in range(self.run_js(f"$('{container}').children.length - 1")):
                self.page.keyboard.press("ArrowRight")
        missed = "controls.filter((c) => !reached.has(c)).map((c) => c.outerHTML)"
        self.assertEqual(self.run_js(missed), [])

    def test_nothing_moves_while_it_is_used_and_nothing_is_too_wide(self):
        self.addCleanup(self.page.set_viewport_size, self.page.viewport_size)
        self.run_js("""
            globalThis.shifts = [];
            const note = (list) => shifts.push(...list.getEntries().map((entry) => entry.value));
            new PerformanceObserver(note).observe({type: "layout-shift"});
        """)
        for width in (390, 1280, 1920):
            self.page.set_viewport_size({"width": width, "height": 900})
            self.assertLessEqual(self.run_js("document.documentElement.scrollWidth"), width)
            self.run_js("new Promise((done) => setTimeout(done, 300))")  # what the new width moved
            self.run_js("shifts.length = 0")
            for script in (
                *("newImages('unit')", "newImages(1)", "takeTestImage()", "clearPaper()"),
                *("show(now.z.map(() => -3), 'x')", "$('zero').click()"),
            ):
                self.run_js(script)
                self.wait_for_frame()
                self.wait_for_frame()
            # The words behind a number move with its width; a section that moves counts ten times.
            self.assertLess(sum(self.run_js("shifts")), 0.01, width)


@needs_browser
class TestOtherModels(InBrowser):
    def test_two_latents_give_a_map_and_a_click_on_it_decodes_there(self):
        model = random_model(z_dim=2)
        self.open(page_of(model))
        lows, spans = (
            torch.tensor(self.run_js(f"axes.map(({{low, high}}) => {value})"))
            for value in ("low", "high - low")
        )
        self.page.mouse.click(*self.place("#map-image", 0.75, 0.9))
        z = self.current()
        expected = lows + spans * torch.tensor([0.75, 0.1])
        torch.testing.assert_close(torch.tensor(z), expected, atol=0.02, rtol=0)
        self.run_js("$('map-place').focus()")
        self.page.keyboard.press("ArrowUp")
        self.assertAlmostEqual(self.current()[1], z[1] + 0.05, places=6)
        self.check_draws(model)
        self.check_that_wrong_weights_are_found()

    def check_draws(self, model: VAE) -> None:
        """The page draws from the prior what `VAE.sample` draws."""
        script = "Array.from({length: 3000}, () => [...drawPrior(3, random)])"
        z = torch.tensor(self.run_js(script))
        torch.manual_seed(0)
        truth = model.prior.sample(20_000, torch.full((20_000,), 3), VAE().hparams.temperature)
        self.assertLess(((z.mean(0) - truth.mean(0)).abs() / truth.std(0)).max().item(), 0.1)
        self.assertLess((z.std(0) / truth.std(0) - 1).abs().max().item(), 0.07)

    def check_that_wrong_weights_are_found(self) -> None:
        self.assertTrue(self.run_js("selfTest()")["passed"])
        for weight in (
            *("MODEL.encoder[0].weight[3]", "MODEL.decoder.at(-1).weight[3]"),
            *("MODEL.prior.classes[3]", "MODEL.prior.last.weight[3]"),
        ):
            with self.subTest(weight=weight):
                self.run_js(f"globalThis.right = {weight}; {weight} += 1")
                self.assertFalse(self.run_js("selfTest()")["passed"])
                self.run_js(f"{weight} = right")

    def test_one_latent_gives_a_line(self):
        self.open(page_of(random_model(z_dim=1)))
        low, high = self.run_js("[axes[0].low, axes[0].high]")
        self.page.mouse.click(*self.place("#map-image", 0.25, 0.5))
        self.assertAlmostEqual(self.current()[0], low + 0.25 * (high - low), delta=0.02)
        self.assertTrue(self.run_js("selfTest()")["passed"])

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
        ours = torch.tensor([self.run_js(script)], dtype=torch.double)
        torch.testing.assert_close(ours, net(x), atol=1e-3, rtol=0)


if __name__ == "__main__":
    unittest.main()
