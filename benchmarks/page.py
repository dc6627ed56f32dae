"""How fast the page of explore.py answers, and pictures of it: needs Chromium.

python benchmarks/page.py explore.html FOLDER
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser import Browser

SIZES = {"phone": (390, 844), "laptop": (1280, 800), "projector": (1920, 1080)}
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


def measure(url: str) -> None:
    """Prints the milliseconds of every action, and of all 24 new images."""
    with Browser(url, *SIZES["laptop"]) as page:
        time.sleep(2)  # the first images are there
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="HTML file that explore.py wrote")
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    url = args.page.absolute().as_uri()
    measure(url)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        for dark in (False, True):
            with Browser(url, *size, dark, scale=2, touch=name == "phone") as page:
                page.until("$('tiles').lastElementChild.ariaLabel")
                page.run("new Promise((done) => setTimeout(done, 300))")
                page.screenshot(args.folder / f"{name}_{'dark' if dark else 'light'}.png")


if __name__ == "__main__":
    main()
