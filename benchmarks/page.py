"""How fast the page of explore.py answers, and pictures of it: needs Chromium.

python benchmarks/page.py docs/explore.html FOLDER
python benchmarks/page.py docs/explore.html --readme figures/explore.png
"""

import argparse
import math
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser import Browser

SCREENS = {
    "phone": {"width": 390, "height": 844, "scale": 2, "touch": True},
    "laptop": {"width": 1280, "height": 800},
    "projector": {"width": 1920, "height": 1080},
}
IN_README = {"width": 1280, "height": 980, "scale": 1.5}
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


def ready(page: Browser) -> None:
    """Waits until all that the page shows at first is there."""
    page.until("$('tiles').lastElementChild.ariaLabel")
    page.run("new Promise((done) => setTimeout(done, 300))")


def measure(page: Browser) -> None:
    """Prints the milliseconds of every action, and of all 24 new images."""
    page.run(SLIDE)
    page.run("document.querySelector('input[value=drawn]').click()")
    print("milliseconds: median, longest of 20")
    for name, action in ACTIONS.items():
        times = [page.run(TIMED % (action, n / 20)) for n in range(20)]
        print(f"{name:30}{median(times):8.0f}{max(times):8.0f}")
    times = [page.run(ALL_NEW) for _ in range(20)]
    print(f"{'24 new images: all':30}{median(times):8.0f}{max(times):8.0f}")
    print("self-test:", page.run("selfTest()"))
    print("errors:", page.errors or "none")


def take_pictures(page: Browser, folder: Path) -> None:
    """The whole page on every screen, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, screen in SCREENS.items():
        for colours in ("light", "dark"):
            page.screen(**screen, dark=colours == "dark")
            ready(page)
            page.screenshot(folder / f"{name}_{colours}.png", whole=True)


def take_readme_picture(page: Browser, file: Path) -> None:
    """The top of the page with a drawing on its paper."""
    page.screen(**IN_README)
    page.click("#clear")
    page.drag("#paper", TWO)
    page.run("scrollTo({top: 0, behavior: 'instant'})")
    ready(page)
    page.screenshot(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="HTML file that explore.py wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="measure; folder for the pictures")
    what.add_argument("--readme", type=Path, help="file for the picture of the README")
    args = parser.parse_args()
    with Browser() as page:
        page.open(args.page.absolute().as_uri())
        ready(page)
        if args.readme:
            take_readme_picture(page, args.readme)
        if args.folder:
            measure(page)
            page.open(args.page.absolute().as_uri())
            take_pictures(page, args.folder)


if __name__ == "__main__":
    main()
