"""The page to play with: its numbers are the model's, and what it promises works in a browser.

What needs a browser is driven by Playwright: pip install -r requirements-dev.txt, and Chromium.
"""

import json
import math
import re
import shutil
import tempfile
import unittest
from base64 import b64encode
from functools import cache
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import tiny  # noqa: F401  for the path of what is tested
import torch
from photos import PHOTOS, photo
from PIL import Image
from torch import nn

import fmnist
from cnn_encoder_decoder import ResidualBlock
from explore import PLANE
from fmnist import DIGITS, DiscreteImages, four_bit
from judging.samples import load_classifier
from page import contents, layers
from page.contents import Shown
from pictures.epochs import kept_epochs
from prior import LatentPrior
from reading.choice import DataSets
from reading.photo import photographed
from train_pl import PRETRAINED, VAE, load_model
from utils import KLD, elbo_to_bpd, gaussian_log_prob, mean_image, reconstruction_loss

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium")
COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "explore.html"
HOSTILE = "</script><script>throw Error('inside')</script>"  # a checkpoint's name


def setUpModule():
    """One browser for all tests, as a start takes seconds."""
    global BROWSER
    if sync_playwright and CHROMIUM:
        driver = unittest.enterModuleContext(sync_playwright())
        quiet = ["--no-sandbox", "--disable-gpu"]
        BROWSER = driver.chromium.launch(executable_path=CHROMIUM, args=quiet)
        unittest.addModuleCleanup(BROWSER.close)


def random_model(z_dim: int, seed: int = 0, num_levels: int = 16, num_classes: int = 10) -> VAE:
    """A small model with all weights random, so that none can be left out."""
    model = VAE(2, z_dim, num_levels=num_levels)
    model.prior = LatentPrior(z_dim, width=30, num_components=3, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 1 / parameter.shape[-1] ** 0.5 if name.startswith("prior") else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def page_of(models: list[Shown], name: str = "MNIST", classes: tuple[str, ...] = DIGITS) -> str:
    """A page with the mean figures of few images and the sliders' ends from few draws."""
    fmnist.prepare()
    data = fmnist.load(train=False).subset(torch.arange(100))  # two of every digit are among them
    levels = models[0].model.hparams.num_levels
    data = DiscreteImages(data.images // (16 // levels), data.labels, classes, num_levels=levels)
    with mock.patch.object(contents, "NUM_DRAWS", 100):
        return contents.page(contents.contents(models, DataSets(name, name, data, data, data)))


def both_sums(levels: torch.Tensor) -> list[torch.Tensor]:
    """The ink of each row and of each column of an image, float [28, 28]."""
    return [levels.sum(dim=1), levels.sum(dim=0)]


def file_of(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W] or [H, W, 3]."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


@cache
def small_page() -> str:
    """Models with which an action takes milliseconds; the last one has sliders to open."""
    epochs = [(n / 2, random_model(2, seed=n + 1)) for n in range(3)]
    plane = Shown("plane.ckpt", random_model(2), epochs)
    return page_of([plane, *(Shown(f"{n}.ckpt", random_model(n, seed=n)) for n in (3, 20))])


@unittest.skipUnless(
    sync_playwright and CHROMIUM, "needs Chromium and pip install -r requirements-dev.txt"
)
class InBrowser(unittest.TestCase):
    """Nothing may be on the console at the end of a test, and no request have left the file."""

    @classmethod
    def open(cls, html: str, **screen: object) -> None:
        """Opens a page; cls.page is Playwright's. Nothing moves by itself at its start."""
        file = Path(cls.enterClassContext(tempfile.TemporaryDirectory()), "page.html")
        file.write_text(html, encoding="utf-8")
        how = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **screen}
        page = cls.page = BROWSER.new_page(**how)
        cls.addClassCleanup(page.close)
        page.set_default_timeout(60_000)
        cls.complaints = []
        page.on("console", lambda said: cls.complaints.append(said.text))
        page.on("pageerror", lambda error: cls.complaints.append(str(error)))
        page.goto(file.as_uri())
        page.on("request", lambda asked: cls.complaints.append(asked.url))
        cls.until("$('tiles').lastElementChild.ariaLabel")

    @classmethod
    def run_js(cls, script: str) -> object:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        return cls.page.evaluate(script)

    @classmethod
    def until(cls, condition: str) -> None:
        """Waits until a JavaScript expression is true; Playwright's own way is against the CSP."""
        for _ in range(1000):
            if cls.run_js(condition):
                return
            cls.page.wait_for_timeout(10)
        raise TimeoutError(condition)

    def setUp(self):
        self.run_js("state.challenge = state.drawnPixels = null; act('model', 0); act('clear')")

    def tearDown(self):
        complaints = self.complaints[:]
        self.complaints.clear()
        self.assertEqual(complaints, [])

    def current(self) -> list[float]:
        return [float(value) for value in self.run_js("[...state.z]")]

    def text(self, name: str) -> str:
        return self.run_js(f"(draw(), $('{name}').textContent)")

    def wait_for_frame(self) -> None:
        self.run_js("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def pixels(self, canvas: str) -> list[int]:
        """The grey levels 0..255 of a canvas, its id or an expression for it."""
        canvas = f"$('{canvas}')" if re.fullmatch("[a-z-]+", canvas) else canvas
        return self.run_js(f"""(() => {{
            draw();
            const copy = new OffscreenCanvas(28, 28).getContext("2d", {{willReadFrequently: true}});
            copy.drawImage({canvas}, 0, 0);
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

    def draw_strokes(self, strokes: list[list[tuple[float, float]]]) -> None:
        places = [[{"x": x, "y": y} for x, y in stroke] for stroke in strokes]
        self.run_js(f"""(act("clear"), {places}.forEach(([first, ...rest]) => {{
            act("penDown", first);
            act("penMove", rest);
        }}))""")

    def assert_on_map(self, share: list[float]) -> None:
        """The current latents are where the bell curve has these shares below them."""
        z = torch.tensor(self.current()) / self.run_js("state.model.typical.spread")
        torch.testing.assert_close(torch.special.ndtr(z), torch.tensor(share), atol=0.02, rtol=0)

    @torch.no_grad()
    def assert_decoded(self, canvas: str, model: nn.Module, z: list[float]) -> None:
        """The canvas soon shows the expected grey levels, in 0..255, that PyTorch decodes."""
        truth = 255 * mean_image(model.decoder(torch.tensor([z]))).flatten()
        for _ in range(100):  # small images are drawn one after the other
            if (furthest := (torch.tensor(self.pixels(canvas)) - truth).abs().max().item()) <= 2:
                return
            self.page.wait_for_timeout(20)
        self.fail(f"{canvas}: a pixel is {furthest} grey levels off")


# Strokes that are no digits, in 0..1.
NO_DIGITS = {
    "A": [[(0.2, 0.85), (0.5, 0.15), (0.8, 0.85)], [(0.32, 0.6), (0.68, 0.6)]],
    "scribble": [
        [(0.5 + 0.3 * math.sin(2.4 * n), 0.5 + 0.3 * math.cos(1.7 * n)) for n in range(25)]
    ],
    "dot": [[(0.5, 0.5)]],
    "line": [[(0.1, 0.5), (0.9, 0.5)]],
    "filled square": [[(0.2 + 0.6 * (n % 2), 0.2 + 0.03 * n) for n in range(21)]],
    "two far strokes": [[(0.05, 0.05), (0.15, 0.15)], [(0.85, 0.9), (0.95, 0.95)]],
    "42": [
        *([(0.1, 0.2), (0.05, 0.55), (0.4, 0.55)], [(0.3, 0.3), (0.3, 0.85)]),
        [(0.55, 0.35), (0.65, 0.22), (0.85, 0.25), (0.85, 0.42), (0.55, 0.8), (0.95, 0.8)],
    ],
}


class TestShippedModels(InBrowser):
    """The committed page with today's files of page/, and a hostile name."""

    @classmethod
    def setUpClass(cls):
        cls.model, cls.plane = load_model(PRETRAINED), load_model(PLANE)
        page = COMMITTED.read_text(encoding="utf-8")
        known = json.loads(re.search('type="application/json">(.*?)</script>', page, re.DOTALL)[1])
        known["models"][0]["name"] = HOSTILE
        cls.open(contents.page(known))
        cls.first_tiles = cls.run_js("state.tiles.each.map(({z, label}) => [[...z], label])")

    def test_its_numbers_are_those_of_pytorch_in_both_models(self):
        self.assertIn(HOSTILE, self.text("facts"))  # the name of a file is text and nothing else
        result = self.run_js("selfTest()")
        self.assertTrue(result["passed"], result)
        self.assertEqual((result["models"], result["images"]), (2, 2 * 20))
        parts = [result[name] for name in ("encoder", "decoder", "prior")]
        self.assertLess(max(parts), 2e-2)
        self.assertGreater(min(parts), 0)
        self.assertLess(result["bpd"], 1e-3)

    def test_the_first_new_digits_are_digits_and_a_click_takes_one(self):
        z, labels = (torch.tensor(values) for values in zip(*self.first_tiles, strict=True))
        with torch.no_grad():
            imgs = (15 * mean_image(self.model.decoder(z))).round().long()
            sure = load_classifier()(imgs).softmax(1)[torch.arange(24), labels]
        self.assertGreater(sure.min().item(), 0.5)
        self.assertGreater((sure > 0.9).float().mean().item(), 0.9)
        self.page.click("#tiles button:nth-child(5)")
        z = self.run_js("[...state.tiles.each[4].z]")
        self.assertEqual(self.current(), z)
        self.assert_decoded("image", self.model, z)
        self.assert_decoded("$('tiles').children[4].firstElementChild", self.model, z)

    def test_a_drawing_is_centred_encoded_judged_and_read(self):
        self.drag("#paper", [(0.1, 0.1), (0.3, 0.1), (0.3, 0.12), (0.2, 0.5)])
        levels = torch.tensor(self.pixels("heart-x")).view(28, 28) / 17
        sides = [1 + int(ink.nonzero().max() - ink.nonzero().min()) for ink in both_sums(levels)]
        self.assertLess(sides[1], sides[0])
        self.assertEqual(sides[0], 20)
        for ink in both_sums(levels):
            centre = (ink @ torch.arange(28.0) / ink.sum()).item()
            self.assertAlmostEqual(centre, 14, delta=0.75)  # it is moved by whole pixels
        noise = torch.tensor([self.run_js("[...state.noises[0]]")])
        imgs, prior = levels.long().view(1, 1, 28, 28), self.model.prior
        with torch.no_grad():
            mean, log_std = self.model.encoder(imgs)
            z = mean + log_std.exp() * noise
            each = prior.log_prob(mean.expand(10, -1), torch.arange(10)).softmax(0)
            L_rec, L_reg = reconstruction_loss(self.model.decoder(z), imgs), KLD(mean, log_std)
            learned = gaussian_log_prob(z, mean, log_std) - prior.log_prob(z)
        shown = self.run_js("""(({reconstruction, regularization, learned, learnedBpd}) =>
            [reconstruction, regularization, learned, learnedBpd, reading(state.z).logProb,
             ...reading(state.z).shares])(costNow())""")
        truth = (L_rec, L_reg, learned, elbo_to_bpd(L_rec + learned, imgs.shape))
        truth = torch.cat([*truth, prior.log_prob(mean), each])
        torch.testing.assert_close(torch.tensor(shown), truth, atol=0.02, rtol=2e-3)
        torch.testing.assert_close(torch.tensor(self.current()), mean[0], atol=5e-3, rtol=0)
        self.assertIn(f"reads as {each.argmax()} · {100 * each.max():.0f} %", self.text("guess"))

    def test_a_run_is_watched_from_noise_to_digits(self):
        kept = kept_epochs(PLANE, self.plane)
        self.assertEqual(self.text("learn-title"), "Watch 2 latents learn")
        z = self.run_js("[...LEARNED_Z.at(-1)]")
        for moment in (0, 4, len(kept) - 1):
            self.run_js(f"$('epoch').value = {moment}")
            self.run_js("$('epoch').dispatchEvent(new Event('input', {bubbles: true}))")
            self.assert_decoded("$('then').lastElementChild", kept[moment][1], z)
            told = float(re.search(r"costs (\S+) bits", self.text("learned"))[1])
            self.assertAlmostEqual(told, self.run_js(f"LEARNER.epochs[{moment}].bpd"), delta=0.006)
        self.assertGreater(self.run_js("LEARNER.epochs[0].bpd / LEARNER.epochs.at(-1).bpd"), 4)

    def test_most_that_is_no_digit_is_told_and_hardly_a_digit_is(self):
        unusual = {}
        for name, strokes in NO_DIGITS.items():
            self.draw_strokes(strokes)
            unusual[name] = self.text("guess") == "not like a digit"
        self.assertGreaterEqual(sum(unusual.values()), 5, unusual)
        data = fmnist.load(train=False)
        data = data.subset(torch.arange(5000, 10_000))  # not those of the scales
        some = torch.cat([(data.labels == y).nonzero()[:4, 0] for y in range(10)])
        told = "filter((levels) => (ACTIONS.picture(levels), placeNow().unusual)).length"
        for model in range(2):
            self.run_js(f"act('model', {model})")
            images = data.images[some].flatten(1).tolist()
            self.assertLessEqual(self.run_js(f"{images}.{told}"), 1)

    def test_empty_paper_reads_as_nothing_and_what_is_decoded_only_by_its_latents(self):
        self.run_js("act('model', 1)")
        self.assertEqual(self.text("guess"), "nothing to read")
        self.assertNotIn("%", self.text("likely") + self.text("dear"))
        self.run_js("act('fresh', null); act('take', 0)")
        self.assertRegex(self.text("guess"), "reads as")
        self.run_js("act('slide', 0, 4.5); act('slide', 1, -4.5)")
        self.assertEqual(self.text("guess"), "not like a digit")

    def test_the_challenges_can_be_met(self):
        slide = "ACTIONS.reread(); ACTIONS.slide(n % 2, n / 8 - 4)"
        stroke = """act("clear"); act("penDown", {x: 0.25 + n / 100, y: 0.15});
            act("penMove", [{x: 0.55, y: 0.13}, {x: 0.5, y: 0.9}])"""
        for n, (model, action) in enumerate(((1, slide), (1, "ACTIONS.test()"), (0, stroke))):
            done = f"CHALLENGES[{n}].done(state)"
            self.run_js(f"act('model', {model}); act('challenge', {n})")
            self.run_js(f"for (let n = 0; n < 65 && !{done}; n++) {{ {action}; }}")
            self.assertIn("Done!", self.text("goal"))
            self.assertTrue(self.run_js(f"follow(addressOf(state)) && {done}"))


# Everything that is shown at once, compared with what is computed anew from the state: a list of
# what is not true.
AUDIT = """(() => {
    const wrong = [], {model, x, z, tiles, morph, origin, noises, challenge} = state;
    const expect = (what, shown, truth) => {
        if (String(shown) !== String(truth)) wrong.push(`${what}: ${shown}, but it is ${truth}`);
    };
    const copy = new OffscreenCanvas(28, 28).getContext("2d", {willReadFrequently: true});
    const shows = (canvas, levels) => {
        copy.drawImage(canvas, 0, 0);
        const {data} = copy.getImageData(0, 0, 28, 28);
        return [...data].every((value, i) => i % 4 ||
            Math.abs(value - (levels ? levels[i / 4] / 15 * 255 : 0)) <= 1);
    };
    const empty = origin.kind === "empty", logits = decode(model, z);
    const of = state.drawnPixels ? drawnLevels(logits, state.drawnPixels) : expectedLevels(logits);
    for (const name of ["image", "mini-image"]) {
        expect(name, shows($(name), empty ? null : of), true);
    }
    expect("drawn", $("drawn").ariaPressed, state.drawnPixels !== null);
    expect("size", document.querySelector(".size").textContent, `${z.length} numbers`);
    for (const {index, value} of sliders) {
        expect(`z[${index}]`, value.textContent, number(z[index], 2));
    }
    expect("sliders", sliders.length, model.zDim);
    expect("zero", !["zero", "empty"].includes(origin.kind) || z.every((v) => v === 0), true);

    // The image in view: what is on the paper, or what the latents draw.
    const read = x && encode(model, x.levels);
    const onPaper = ["drawing", "test", "picture"].includes(origin.kind);
    expect("on the paper", !onPaper || z.every((value, d) => value === read.mean[d]), true);
    const levels = empty ? null : onPaper ? x.levels : of.map(Math.round);
    const q = levels && encode(model, levels), cost = q && loss(model, levels, q, noises[0]);
    expect("x", shows($("heart-x"), levels), true);
    expect("z", shows($("heart-again"), q && expectedLevels(decode(model, drawOf(q, noises[0])))),
        true);
    const [plain, learned] = [...$("sums").children].map((row) => row.textContent);
    const sum = (row) => (row.replace("\u2212", "-").match(/-?\\d+[.]\\d+/g) ?? []).map(Number);
    if (cost) {
        const [bpd, L_rec, L_reg] = sum(plain), [priorBpd, , KL] = sum(learned);
        for (const [what, shown, truth] of [
            ["bpd", bpd, cost.bpd], ["L_rec", L_rec, cost.reconstruction],
            ["L_reg", L_reg, cost.regularization], ["sum", bpd, inBpd(L_rec + L_reg)],
            ["sum with the learned prior", priorBpd, inBpd(L_rec + KL)],
        ]) expect(what, Math.abs(shown - truth) < (what.startsWith("L") ? 0.06 : 0.001), true);
    } else {
        expect("no cost", sum(plain).length + sum(learned).length, 0);
    }
    const kl = [...$("bells").children].map((row) => row.lastChild.textContent);
    expect("KL", kl, model.typical.latents.slice(0, BELLS)
        .map(({index}) => cost ? number(klPerLatent(q)[index], 1) : "\u2013"));

    const each = logPriors(model, z, 10), logProb = logSumExp(each) - Math.log(10);
    const {logProbs, costs} = model.typical, best = each.indexOf(Math.max(...each));
    const judged = onPaper || state.drawnPixels !== null;
    const unusual = cost && (logProb <= logProbs[0] || judged && cost.bpd > costs[99]);
    const share = Math.round(100 * Math.exp(each[best] - logSumExp(each)));
    expect("guess", $("guess").textContent, empty ? "nothing to read"
        : unusual ? "not like a digit" : `reads as ${best} \u00b7 ${share} %`);
    expect("likely", $("likely").textContent.includes(`${number(logProb, 1)} nats`), !empty);
    expect("dear", $("dear").textContent.includes(`${cost?.bpd.toFixed(2)} bits`), !empty);
    expect("a mean is not judged", $("dear").textContent.includes("mean"), !empty && !judged);
    expect("reread", $("reread").style.visibility, x && !onPaper ? "visible" : "hidden");
    expect("clear", $("clear").disabled, !x);
    expect("undo", $("undo").disabled, !state.strokes.length);
    expect("share", $("way").style.visibility, morph ? "visible" : "hidden");
    expect("again", $("again").disabled, empty);
    [...$("tiles").children].forEach((button, n) => {
        const taken = tiles.each[n].z.every((value, d) => value === z[d]);
        expect(`tile ${n}`, button.ariaPressed, taken);
        expect(`tile ${n}`, tiles.each[n].z.length, model.zDim);
    });
    expect("map", $("map").hidden, model.zDim > 2);
    if (model.zDim === 2) {
        const [right, up] = onMap(model, z);
        const {left, top} = $("map-place").style, shown = [left, top].map(parseFloat);
        const off = Math.hypot(shown[0] - 100 * right, shown[1] - 100 * (1 - up));
        expect("place", off < 0.01, true);
        expect("draws on the map", $("map-q").querySelectorAll(".dot").length, empty ? 0 : 10);
    }
    expect("moment", $("epoch").value, state.moment);
    const goal = challenge === null ? "Choose one." : CHALLENGES[challenge].done(state)
        ? "Done!" : CHALLENGES[challenge].how;
    expect("challenge", $("goal").textContent.startsWith(goal), true);
    return wrong;
})()"""

# Every action, and what the two images are called after it: regular expressions; None: as before.
DECODED = "decoded from its latents"
ACTIONS = {
    "act('penDown', {x: 0.4, y: 0.3}); act('penMove', [{x: 0.6, y: 0.8}])": (
        *("your drawing", DECODED),
    ),
    "act('clear')": ("empty paper", "nothing to decode"),
    "act('undo')": (None, None),
    "document.querySelector('[data-do=test]').click()": ("a test image: .", DECODED),
    "act('picture', testImage(3))": ("your picture", DECODED),
    "$('reread').click()": (None, f"{DECODED}|nothing to decode"),
    "set(sliders[0].input, 1)": (None, "moved by hand"),
    "document.querySelector('[data-do=zero]').click()": (None, "all latents at 0"),
    "act('place', atPlace(state.model, [0.2, 0.7, 0.4]))": (None, "a place of the map"),
    "follow(addressOf(state)); redraw()": (None, ".*"),
    "$('tiles').children[3].click()": (None, "a new .|a draw from .*"),
    "$('targets').children[4].click(); set($('share'), 0.3)": (None, "30 % of the way to 4"),
    "$('classes').children[5].click()": (None, None),
    "$('drawn').click()": (None, None),
    "document.querySelector('[data-do=again]').click()": (None, None),
    "$('goals').children[0].click()": ("a test image: 4", DECODED),
    "$('goals').children[2].click()": ("empty paper", "nothing to decode"),
    "document.querySelector('[name=model][value=\"1\"]').click()": (None, ".*"),
    "document.querySelector('[name=model][value=\"0\"]').click()": (None, ".*"),
}
WALK = """(() => {
    const set = (input, value) => {
        input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    };
    const names = () => [$("x-name").textContent, $("z-name").textContent];
    return [%s].map((action) => {
        const before = names(), strokes = state.strokes.length;
        action(set);
        draw(); // now, and not with the next frame
        return [%s, before, names(), strokes];
    });
})()"""


class TestSmallModels(InBrowser):
    """All that is the same with any model."""

    @classmethod
    def setUpClass(cls):
        cls.model = random_model(2)
        cls.open(small_page())

    def test_after_every_pair_of_actions_what_is_shown_is_true(self):
        each = [*ACTIONS]
        walk = []  # every ordered pair once: all words of one letter or of two rising ones
        for n, first in enumerate(each):
            walk += [first, *(action for second in each[n + 1 :] for action in (first, second))]
        script = WALK % (", ".join(f"(set) => {{ {action} }}" for action in walk), AUDIT)
        before_it = "act('clear')"
        for action, (wrong, before, shown, strokes) in zip(walk, self.run_js(script), strict=True):
            names = ACTIONS[action]
            if action == "act('undo')" and strokes:
                names = ACTIONS["act('clear')" if strokes == 1 else each[0]]
            with self.subTest(first=before_it, second=action):
                self.assertEqual(wrong, [])
                for name, was, now in zip(names, before, shown, strict=True):
                    self.assertRegex(now, f"^({name or re.escape(was)})$")
            before_it = action

    def test_a_slider_moves_its_latent_and_the_image(self):
        self.run_js("act('test')")
        before = self.current()
        self.drag("#sliders input", [(0.25, 0.5), (0.5, 0.5)])
        after = self.current()
        moved = self.run_js("MODELS[0].typical.latents[0].index")
        self.assertEqual([d for d in range(len(after)) if after[d] != before[d]], [moved])
        self.assertAlmostEqual(after[moved], 0, delta=0.1)  # the middle is zero
        self.assert_decoded("image", self.model, after)
        self.page.keyboard.press("ArrowRight")
        self.assertAlmostEqual(self.current()[moved], after[moved] + 0.01, places=6)

    def test_small_images_follow_as_soon_as_nothing_moves(self):
        self.run_js("act('test')")
        q = self.run_js("[[...state.posterior.mean], [...state.posterior.logStd]]")
        mean, log_std = map(torch.tensor, q)
        for n, noise in enumerate(self.run_js("state.noises.map((noise) => [...noise])")):
            z = mean + log_std.exp() * torch.tensor(noise)
            self.assert_decoded(f"$('draws').children[{n}]", self.model, z.tolist())
        for slider in range(2):
            index = self.run_js(f"sliders[{slider}].index")
            for n, value in enumerate((-2, 0, 2)):
                there = [value if d == index else z for d, z in enumerate(self.current())]
                self.run_js(f"""globalThis.part = new OffscreenCanvas(28, 28);
                    part.getContext("2d").drawImage(sliders[{slider}].strip, {-28 * n}, 0)""")
                self.assert_decoded("globalThis.part", self.model, there)
        before = self.run_js("[...state.noises[0]]")
        self.page.click("#again")
        self.assertNotEqual(self.run_js("[...state.noises[0]]"), before)
        self.assertEqual(self.run_js("[...state.noises[1]]"), before)

    def test_a_stroke_is_read_aloud_once_at_its_end(self):
        self.assertEqual(self.run_js("document.querySelectorAll('[aria-live]').length"), 0)
        self.until("$('said').textContent.includes('nothing to read')")
        self.run_js("""
            globalThis.spoken = [];
            new MutationObserver(() => spoken.push($("said").textContent))
                .observe($("said"), {childList: true});
            act("penDown", {x: 0.3, y: 0.2});
            for (let n = 1; n < 30; n++) act("penMove", [{x: 0.3 + n / 90, y: 0.2 + n / 50}]);
        """)
        self.until("spoken.length")
        self.assertRegex(self.run_js("spoken.join()"), "^decoded from its latents: [^,]*$")

    def test_a_link_opens_the_same_model_paper_latents_and_challenge(self):
        for actions in (
            "act('model', 0); act('test')",
            "act('model', 2); act('clear'); act('penDown', {x: 0.123, y: 0.3});"
            "act('penMove', [{x: 0.6, y: 0.8}, {x: 1.2, y: -3}]); act('penDown', {x: 0.5, y: 0.5})",
            "act('model', 1); act('picture', testImage(3)); act('slide', 1, -0.75)",
            "act('model', 0); act('clear'); act('link', [0.25, -1.5]); act('challenge', 1)",
        ):
            with self.subTest(actions):
                self.run_js(f"state.challenge = null; {actions}")
                parts = """[state.model.name, state.x && [...state.x.levels], nameOfX(state.x),
                    [...state.z].map((v) => v.toFixed(3)), state.strokes, state.challenge]"""
                shown, address = self.run_js(f"[{parts}, addressOf(state)]")
                self.run_js("act('model', 1); act('clear'); act('challenge', 2); draw()")
                self.run_js("clearTimeout(restTimer)")  # or the page writes its own before
                self.run_js(f"history.replaceState(null, '', '#'); location.hash = '{address}'")
                self.until("state.challenge !== 2")
                self.assertEqual(self.run_js(parts), shown)
                self.assertEqual(self.run_js(f"(draw(), {AUDIT})"), [])
        self.assertEqual(self.text("z-name"), "latents of a link")
        self.until("location.hash === '#m=0&c=1&z=0.25,-1.5'")
        for bad in ("m=0&z=1", "m=3", "m=1&z=1,x,2", "z=1,", "test=999", "drawing=12", "elsewhere"):
            self.run_js(f"state.message = ''; location.hash = '{bad}'")
            self.until("$('message').textContent.startsWith('This link')")
            self.assertEqual(self.current(), [0.25, -1.5])

    def test_a_reload_keeps_the_drawing(self):
        self.draw_strokes([[(0.4, 0.3), (0.6, 0.8)]])
        levels = self.run_js("[...state.x.levels]")
        self.until("location.hash.includes('drawing=')")
        self.page.reload()
        self.until("$('tiles').lastElementChild.ariaLabel")
        self.complaints.remove(self.page.url.split("#")[0])  # the file itself was asked for
        self.assertEqual(self.run_js("[...state.x.levels]"), levels)
        self.page.keyboard.press("Control+z")
        self.assertEqual(self.text("x-name"), "empty paper")

    def test_a_click_on_the_map_decodes_there(self):
        self.page.mouse.click(*self.place("#map-image", 0.75, 0.9))
        self.assert_on_map([0.75, 0.1])
        z = self.current()
        self.run_js("$('map-place').focus()")
        self.page.keyboard.press("ArrowUp")
        self.assertAlmostEqual(self.current()[1], z[1] + 0.05, places=6)
        self.assert_decoded("image", self.model, self.current())

    def test_the_keyboard_draws_too(self):
        self.run_js("$('paper').focus()")
        for key in (" ", *["ArrowDown"] * 5, " ", "ArrowLeft", "ArrowLeft"):
            self.page.keyboard.press(key)
        self.assertEqual(self.run_js("state.strokes.map((stroke) => stroke.length)"), [6])
        self.assertGreater(sum(self.pixels("heart-x")), 0)

    def test_a_morph_goes_along_the_line_to_the_other_class_by_itself_and_by_hand(self):
        self.run_js("act('test')")
        start = torch.tensor(self.current())
        self.page.click("#targets button:nth-child(4)")
        self.until("state.morph.share === 1")  # at once, as motion is to be reduced
        end = self.run_js("[...encode(MODELS[0], testImage(PAGE.labels.indexOf(3))).mean]")
        torch.testing.assert_close(self.current(), end)
        self.run_js("$('share').value = 0.5; $('share').focus()")
        self.page.keyboard.press("ArrowRight")
        line = torch.lerp(start, torch.tensor(end), 0.51)
        torch.testing.assert_close(torch.tensor(self.current()), line)
        self.assertEqual(self.text("z-name"), "51 % of the way to 3")
        self.assert_decoded("image", self.model, line.tolist())
        self.page.click("#reread")
        torch.testing.assert_close(torch.tensor(self.current()), start)

    def test_classes_and_the_plain_prior_show_what_they_draw_and_say_why(self):
        self.page.click("#classes button:nth-child(9)")
        self.until("$('tiles').lastElementChild.ariaLabel.includes('a new 7')")
        pressed = "[...$('classes').children].filter((b) => b.ariaPressed === 'true')"
        self.assertEqual(self.run_js(f"{pressed}.map((b) => b.textContent)"), ["7"])
        self.assertIn("learned prior", self.text("lesson"))
        self.page.click("#classes button:last-child")
        self.until("$('tiles').lastElementChild.ariaLabel.includes('N(0, I)')")
        self.assertIn("are no digits", self.text("lesson"))

    def test_photos_become_the_same_as_in_python_to_a_grey_level_and_are_read(self):
        labels, classifier = fmnist.load(train=False).labels.tolist(), load_classifier()
        photos = [(photo(n, kind), labels[n:][: 1 + (kind == "two")]) for n, kind in PHOTOS]
        for pixels, truth in (*photos, (np.full((300, 200, 3), 240, np.uint8), [])):
            with self.subTest(truth):
                file = b64encode(file_of(pixels)).decode()
                found = self.run_js(f"""createImageBitmap(new Blob([bytesOf("{file}")])).then(
                    (bitmap) => levelsOfPicture(bitmap).map((levels) => [...levels]))""")
                expected = photographed(np.asarray(Image.fromarray(pixels).convert("L")))
                for levels, image, label in zip(found, expected, truth, strict=True):
                    apart = np.array(levels).reshape(28, 28) - four_bit(image).astype(int)
                    self.assertLessEqual(np.abs(apart).max(), 1)
                    read = classifier(torch.tensor(levels).long().view(1, 1, 28, 28)).argmax()
                    self.assertEqual(read.item(), label)

    def test_a_file_is_taken_as_it_is_if_it_has_28_by_28_pixels_and_said_if_it_is_no_picture(self):
        image = fmnist.load(train=False).images[0, 0].numpy()
        for content, said in (
            (file_of(photo(12, "two")), "Of 2 things in this picture, the largest is taken."),
            (file_of(image * 16), ""),
            (file_of(np.full((200, 200), 250, np.uint8)), "Nothing in this picture stands out"),
            (b"none", "This file is no picture"),
        ):
            self.run_js("state.message = null")
            self.page.set_input_files("#file", {"name": "x", "mimeType": "", "buffer": content})
            self.until("state.message !== null")
            self.assertTrue(self.text("message").startswith(said), said)
            self.assertEqual(self.text("x-name"), "your picture")  # or the one before
        self.assertEqual(self.run_js("[...state.x.levels]"), image.ravel().tolist())

    @torch.no_grad()
    def test_pixels_are_drawn_from_the_decoders_distribution(self):
        self.run_js("act('test')")
        self.page.click("#drawn")
        self.assertTrue(all(level % 17 == 0 for level in self.pixels("image")))
        shares = """(() => {
            const logits = decode(state.model, state.z), shares = Array(PIXELS * LEVELS).fill(0);
            for (let n = 0; n < 1000; n++) {
                drawnLevels(logits, Array(PIXELS).fill((n + 0.5) / 1000))
                    .forEach((level, pixel) => { shares[pixel * LEVELS + level] += 1 / 1000; });
            }
            return shares;
        })()"""
        found = torch.tensor(self.run_js(shares)).view(784, 16)
        logits = self.model.decoder(torch.tensor([self.current()]))[0]
        torch.testing.assert_close(found, logits.softmax(0).flatten(1).T, atol=0.002, rtol=0)

    def test_it_draws_from_the_prior_what_the_model_samples(self):
        script = "Array.from({length: 3000}, () => [...drawPrior(MODELS[0], 3, random).z])"
        z = torch.tensor(self.run_js(script))
        torch.manual_seed(0)
        threes = torch.full((20_000,), 3)
        truth = self.model.prior.sample(len(threes), threes, self.model.hparams.temperature)
        self.assertLess(((z.mean(0) - truth.mean(0)).abs() / truth.std(0)).max().item(), 0.1)
        self.assertLess((z.std(0) / truth.std(0) - 1).abs().max().item(), 0.07)

    def test_wrong_weights_are_found(self):
        parts = ("encoder[0].weight", "decoder.at(-1).weight", "prior.classes", "prior.last.bias")
        for part in parts:
            for change, told in (("+", "NOT the same"), ("-", "The same: on 60 images")):
                self.run_js(f"MODELS[0].{part}[3] {change}= 1")
                self.page.click("#check")
                self.until(f"$('checked').textContent.startsWith('{told}')")

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
        x, weights = torch.randn(1, 2, 11, 12, dtype=torch.double), layers.Weights()
        described = json.dumps(layers.describe(net, weights))
        data = x[0].permute(1, 2, 0).flatten().tolist()
        start = f"{{channels: 2, height: 11, width: 12, data: {data}}}"
        packed = json.dumps(weights.packed())
        script = f"[...run(withWeights({described}, unpacked({packed})), {start})]"
        ours = torch.tensor([self.run_js(script)], dtype=torch.double)
        torch.testing.assert_close(ours, net(x), atol=1e-3, rtol=0)

    def test_every_control_has_a_name_and_is_reached_by_keyboard(self):
        self.run_js("act('model', 2); act('test'); act('morph', 3); $('more').open = true; draw()")
        self.addCleanup(self.run_js, "$('more').open = false")
        self.run_js("""
            globalThis.controls = [...document.querySelectorAll(
                "button, input, summary, canvas[tabindex], dfn, a"
            )].filter((c) => c.checkVisibility({visibilityProperty: true}) && !c.disabled);
            globalThis.reached = new Set();
            addEventListener("focusin", (event) => reached.add(event.target));
        """)
        name = "(c) => c.ariaLabel || c.textContent || [...c.labels].map((l) => l.textContent)[0]"
        names = self.run_js(f"controls.map({name})")
        self.assertGreater(len(names), 90)
        self.assertTrue(all(names), names)
        for _ in range(self.run_js("controls.filter((c) => c.tabIndex >= 0).length + 3")):
            self.page.keyboard.press("Tab")
        # Of radio buttons, Tab reaches the one that is chosen.
        missed = "controls.filter((c) => !reached.has(c) && c.type !== 'radio')"
        self.assertEqual(self.run_js(f"{missed}.map((c) => c.outerHTML)"), [])

    def test_explanations_are_in_the_accessibility_tree_and_escape_closes_them(self):
        word = self.page.locator("dfn").first
        self.assertIn("A network from an image", word.aria_snapshot())
        shown = "getComputedStyle(document.querySelector('dfn span')).opacity"
        word.focus()
        self.assertEqual(self.run_js(shown), "1")
        note = self.page.locator("#heart summary")
        self.assertEqual(note.inner_text(), "Explain")
        note.click()
        self.assertEqual(note.inner_text(), "Hide")
        self.page.keyboard.press("Escape")
        self.assertEqual(note.inner_text(), "Explain")
        word.focus()
        self.page.keyboard.press("Escape")
        self.assertEqual(self.run_js(shown), "0")

    def test_it_is_printed_in_light_colours(self):
        self.addCleanup(self.page.emulate_media, media="screen", color_scheme="light")
        self.page.emulate_media(media="print", color_scheme="dark")
        colour = self.run_js("getComputedStyle(document.body).backgroundColor")
        self.assertEqual(colour, "rgb(244, 242, 238)")

    def test_nothing_moves_while_it_is_used_and_nothing_is_too_wide(self):
        self.addCleanup(self.page.set_viewport_size, self.page.viewport_size)
        self.run_js("""
            act("model", 2);
            globalThis.shifts = [];
            const note = (list) => shifts.push(...list.getEntries().map(({value, sources}) =>
                ({value, moved: sources.map(({node}) => node?.id || node?.nodeName)})));
            new PerformanceObserver(note).observe({type: "layout-shift"});
        """)
        for width in (320, 390, 768, 1280, 1920):
            self.page.set_viewport_size({"width": width, "height": 900})
            self.assertLessEqual(self.run_js("document.documentElement.scrollWidth"), width)
            self.page.wait_for_timeout(100)  # what the new width moved
            self.run_js("shifts.length = 0")
            for action in (
                *("'fresh', 'unit'", "'fresh', 1", "'test'", "'clear'", "'zero'", "'morph', 2"),
                *("'slide', 0, -3", "'take', 3", "'epoch', 2", "'drawn'", "'link', state.z"),
                *("'again'", "'challenge', 0", "'slide', 0, 9", "'slide', 0, 0"),
            ) * (width > 320):  # where a name takes two lines
                self.run_js(f"act({action})")
                self.wait_for_frame()
            # The words behind a number move with its width; a section that moves counts ten times.
            shifts = self.run_js("shifts")
            self.assertLess(sum(shift["value"] for shift in shifts), 0.03, (width, shifts))


class TestOnAPhone(InBrowser):
    @classmethod
    def setUpClass(cls):
        touched = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
        cls.open(small_page(), viewport={"width": 390, "height": 844}, **touched)

    def test_it_is_short_and_no_control_is_covered(self):
        for model in (0, 2):
            self.run_js(f"act('model', {model})")
            self.wait_for_frame()
            self.assertLess(self.run_js("document.documentElement.scrollHeight"), 3200)
            self.assertLessEqual(self.run_js("document.documentElement.scrollWidth"), 390)
            covered = self.run_js("""
                [...document.querySelectorAll("button, input, summary, #paper, #map-image")]
                .filter((c) => c.checkVisibility({visibilityProperty: true})).filter((c) => {
                    c.scrollIntoView({block: "center", behavior: "instant"});
                    const box = c.getBoundingClientRect();
                    const [x, y] = [box.x + box.width / 3, box.y + box.height / 3];
                    const top = document.elementFromPoint(x, y);
                    const related = [c, c.parentElement, ...c.children].includes(top);
                    return !related && top?.id !== "map-points";
                }).map((c) => c.outerHTML)
            """)
            self.assertEqual(covered, [])

    def test_the_image_stays_in_view_and_buttons_are_large_enough_for_a_finger(self):
        self.wait_for_frame()
        self.page.locator("#tiles button").nth(20).click()
        self.until("!$('mini').hidden")
        self.assertTrue(self.run_js("state.tiles.each[20].z === state.z"))
        self.assertEqual(self.pixels("mini-image"), self.pixels("image"))
        self.page.click("#mini")
        self.until("$('mini').hidden")
        sizes = """[...document.querySelectorAll("#classes button, #targets button")].map((b) =>
            Math.min(b.offsetWidth, b.offsetHeight))"""
        self.assertGreaterEqual(min(self.run_js(sizes)), 44)

    def test_a_finger_draws_and_moves_through_the_map_and_the_page_stays(self):
        self.wait_for_frame()
        self.touch("#paper", [(0.3, 0.2), (0.5, 0.4), (0.6, 0.8)])
        self.assertEqual(self.text("x-name"), "your drawing")
        self.assertGreater(self.run_js("state.strokes[0].length"), 2)
        self.touch("#map-image", [(0.5, 0.5), (0.6, 0.6), (0.7, 0.8)])
        self.assertEqual(self.text("z-name"), "a place of the map")
        shares = self.run_js("onMap(state.model, state.z)")
        torch.testing.assert_close(shares, [0.7, 0.2], atol=0.02, rtol=0)

    def touch(self, selector: str, places: list[tuple[float, float]]) -> None:
        """A finger's way, as the browser gets it from a touch screen."""
        session, before = self.page.context.new_cdp_session(self.page), None
        for place in places:
            x, y = self.place(selector, *place)
            kind = "touchStart" if before is None else "touchMove"
            points = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            session.send("Input.dispatchTouchEvent", points)
            before = self.run_js("scrollY") if before is None else before
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        self.assertEqual(self.run_js("scrollY"), before)


class TestOneLatent(InBrowser):
    @classmethod
    def setUpClass(cls):
        cls.open(page_of([Shown("line.ckpt", random_model(z_dim=1, num_levels=2))]))

    def test_the_map_is_a_line_and_one_model_has_no_switch_also_of_two_levels(self):
        self.assertEqual(self.run_js("LEVELS"), 2)
        self.assertTrue(self.run_js("$('learn').hidden && $('models').hidden"))
        self.page.mouse.click(*self.place("#map-image", 0.25, 0.5))
        self.assert_on_map([0.25])
        self.assertTrue(self.run_js("selfTest()")["passed"])


class TestImagesOfOnesOwn(InBrowser):
    """A hundred classes with long names, two models alike, and a phone."""

    @classmethod
    def setUpClass(cls):
        names = (f"class {n}: {'abcdefghi' * 6}"[: 7 if n else 56] for n in range(99))
        cls.classes = (*names, "<b>")
        model = random_model(z_dim=2, num_classes=100)
        models = [Shown("a.ckpt", model), Shown("b.ckpt", model)]
        page = page_of(models, "<i>trees</i>", cls.classes)
        cls.open(page, viewport={"width": 320, "height": 700})

    def test_they_have_their_own_classes_even_without_a_test_image(self):
        self.assertEqual(self.run_js("$('targets').textContent"), "".join(self.classes))
        self.assertIn("<i>trees</i>", self.text("facts"))
        for label in (1, 99):
            self.run_js(f"act('morph', {label}); act('share', 1)")
            self.assertEqual(self.text("z-name"), f"100 % of the way to {self.classes[label]}")
        inside = "document.querySelectorAll('main i:not(dd i, .heads i)').length"
        self.assertEqual(self.run_js(inside), 0)
        self.assertTrue(self.run_js("$('challenges').hidden"))

    def test_they_fit_and_the_most_probable_class_comes_first(self):
        for n in (0, 1):
            self.run_js(f"act('model', {n}); act('morph', 0); draw()")
            self.assertEqual(self.run_js("document.documentElement.scrollWidth"), 320)
        self.assertEqual(self.run_js("$('models').textContent"), "a.ckptb.ckpt")
        self.run_js("act('slide', 0, 0); draw()")
        best = self.run_js("PAGE.classes[reading(state.z).best]")
        first = "[...$('bars').children].find((bar) => bar.style.order === '0')"
        self.assertEqual(self.run_js(f"{first}.textContent"), best)
