"""How fast the page of explore.py answers, and pictures of it: needs Chromium and Playwright.

python benchmarks/page_speed.py docs/explore.html FOLDER
python benchmarks/page_speed.py docs/explore.html --readme figures/explore.png
"""

import argparse
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

TOUCHED = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
SCREENS = {
    "small_phone": {"viewport": {"width": 320, "height": 700}, **TOUCHED},
    "phone": {"viewport": {"width": 390, "height": 844}, **TOUCHED},
    "tablet": {"viewport": {"width": 768, "height": 1024}, **TOUCHED},
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "projector": {"viewport": {"width": 1920, "height": 1080}},
}
IN_README = {"viewport": {"width": 1280, "height": 1288}, "device_scale_factor": 1.25}
ARC = [math.radians(angle) for angle in range(-170, 50, 10)]
TWO = [(0.5 + 0.18 * math.cos(a), 0.36 + 0.18 * math.sin(a)) for a in ARC] + [
    *((0.56, 0.56), (0.34, 0.8), (0.45, 0.78), (0.58, 0.82), (0.72, 0.79))
]
ACTIONS = {  # x runs from 0 to 1
    "a slider moves": "act('slide', state.model.typical.latents[0].index, 2 * x)",
    "a stroke goes on": "act(state.strokes.length ? 'penMove' : 'penDown', "
    "state.strokes.length ? [{x, y: (7 * x) % 1}] : {x, y: 0})",
    "a test image is read": "act('test')",
    "another draw of z": "act('again')",
    "a new image is taken": "act('take', Math.floor(20 * x))",
    "a step of a morph": "state.morph ? act('share', x) : act('morph', 3)",
    "24 new images are drawn": "act('fresh', null)",
    "a place of the map": "act('place', atPlace(state.model, [x, 1 - x]))",
    "an epoch is shown": "act('epoch', Math.floor(LEARNER.epochs.length * x))",
}
# From before the action until the frame that shows it has been handed on.
TIMED = """((x) => new Promise((done) => {
    const start = performance.now();
    %s;
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}))(%f)"""
# How many frames a second the map has while it is dragged through, a move in every frame.
DRAGGED = """(async () => {
    const start = performance.now(), frames = 90;
    for (let n = 0; n < frames; n++) {
        act("place", atPlace(state.model, [n / frames, (7 * n / frames) % 1]));
        await new Promise(requestAnimationFrame);
    }
    return 1000 * frames / (performance.now() - start);
})()"""
OPENED = """(() => {
    const {domContentLoadedEventEnd} = performance.getEntriesByType("navigation")[0];
    return domContentLoadedEventEnd;
})()"""


@contextmanager
def opened(file: Path, **screen: object) -> Iterator[Page]:
    """The page in a browser, as soon as all that it shows at first is there."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(reduced_motion="reduce", **screen)
        page.goto(file.absolute().as_uri())
        page.locator("#tiles button:last-child[aria-label]").wait_for()
        page.wait_for_timeout(1500)
        yield page
        browser.close()


def measure(page: Page) -> None:
    """Prints the milliseconds of every action with each model, and the map's frames."""
    print(f"opened, all scripts run: {page.evaluate(OPENED):.0f} ms")
    for number in range(page.evaluate("MODELS.length")):
        print(page.evaluate(f"(act('model', {number}), latentsOf(state.model))"))
        page.wait_for_timeout(3000)  # the map is there
        plane = page.evaluate("state.model.points !== null")
        for name, action in ACTIONS.items():
            if "map" in name and not plane:
                continue
            times = [page.evaluate(TIMED % (action, n / 20)) for n in range(20)]
            print(f"    {name:30}{median(times):6.0f} ms at the median, {max(times):.0f} at most")
        if plane:
            print(f"    the map, dragged: {page.evaluate(DRAGGED):.0f} frames a second")
    print("self-test:", page.evaluate("selfTest()"))


def draw_two(page: Page) -> None:
    box = page.locator("#paper").bounding_box()
    for n, (x, y) in enumerate(TWO):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if n == 0:
            page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="HTML file that explore.py wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="measure; folder for the pictures")
    what.add_argument("--readme", type=Path, help="file for the picture of the README")
    args = parser.parse_args()
    if args.readme:
        with opened(args.page, **IN_README) as page:
            page.evaluate("act('model', MODELS.length - 1)")
            page.wait_for_timeout(3000)
            draw_two(page)
            page.screenshot(path=args.readme)
        return
    with opened(args.page, **SCREENS["laptop"]) as page:
        measure(page)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, screen in SCREENS.items():
        for colours in ("light", "dark"):
            with opened(args.page, color_scheme=colours, **screen) as page:
                for number in range(page.evaluate("MODELS.length")):
                    page.evaluate(f"act('model', {number})")
                    page.wait_for_timeout(3000)
                    file = args.folder / f"{name}_{colours}_{number}.png"
                    page.screenshot(path=file, full_page=True)


if __name__ == "__main__":
    main()
