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

SCREENS = {
    "phone": {
        "viewport": {"width": 390, "height": 844},
        **{"device_scale_factor": 2, "is_mobile": True, "has_touch": True},
    },
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "projector": {"viewport": {"width": 1920, "height": 1080}},
}
IN_README = {"viewport": {"width": 1280, "height": 980}, "device_scale_factor": 1.5}
ARC = [math.radians(angle) for angle in range(-170, 50, 10)]
TWO = [(0.5 + 0.18 * math.cos(a), 0.36 + 0.18 * math.sin(a)) for a in ARC] + [
    *((0.56, 0.56), (0.34, 0.8), (0.45, 0.78), (0.58, 0.82), (0.72, 0.79))
]
ACTIONS = {
    "a slider moves": "slide(sliders[0].input, -x)",
    "pixels are drawn again": "$('redraw').click()",
    "24 new images: the first": "$('classes').children[Math.floor(11 * x)].click()",
    "a new image is taken": "$('tiles').children[5].click()",
    "a stroke goes on": "(paper.strokes[0] ??= []).push({x, y: (7 * x) % 1}); readPaper()",
    "a test image is read": "$('test-image').click()",
    "the slider between two": "slide($('share'), x)",
    "a slot is filled": "document.querySelector('.slot').click()",
}
SLIDE = """function slide(input, value) {
    input.value = value;
    input.dispatchEvent(new Event("input"));
}"""
# From before the action until the frame that shows it has been handed on.
TIMED = """((x) => new Promise((done) => {
    const start = performance.now();
    %s;
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}))(%f)"""
ALL_NEW = """(async () => {
    const start = performance.now();
    await newImages("unit");
    return performance.now() - start;
})()"""


@contextmanager
def opened(file: Path, **screen: object) -> Iterator[Page]:
    """The page in a browser, as soon as all that it shows at first is there."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(**screen)
        page.goto(file.absolute().as_uri())
        page.locator("#tiles button:last-child[aria-label]").wait_for()
        page.wait_for_timeout(300)
        yield page
        browser.close()


def measure(page: Page) -> None:
    """Prints the milliseconds of every action, and of all 24 new images."""
    page.evaluate(f"globalThis.slide = {SLIDE}")
    page.evaluate("document.querySelector('input[value=drawn]').click()")
    print("milliseconds: median, longest of 20")
    for name, action in ACTIONS.items():
        times = [page.evaluate(TIMED % (action, n / 20)) for n in range(20)]
        print(f"{name:30}{median(times):8.0f}{max(times):8.0f}")
    times = [page.evaluate(ALL_NEW) for _ in range(20)]
    print(f"{'24 new images: all':30}{median(times):8.0f}{max(times):8.0f}")
    print("self-test:", page.evaluate("selfTest()"))


def draw_two(page: Page) -> None:
    page.click("#clear")
    box = page.locator("#paper").bounding_box()
    for n, (x, y) in enumerate(TWO):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if n == 0:
            page.mouse.down()
    page.mouse.up()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="HTML file that explore.py wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="measure; folder for the pictures")
    what.add_argument("--readme", type=Path, help="file for the picture of the README")
    args = parser.parse_args()
    if args.readme:
        with opened(args.page, **IN_README) as page:
            draw_two(page)
            page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
            page.wait_for_timeout(300)
            page.screenshot(path=args.readme)
        return
    with opened(args.page, **SCREENS["laptop"]) as page:
        measure(page)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, screen in SCREENS.items():
        for colours in ("light", "dark"):
            with opened(args.page, color_scheme=colours, **screen) as page:
                page.screenshot(path=args.folder / f"{name}_{colours}.png", full_page=True)


if __name__ == "__main__":
    main()
