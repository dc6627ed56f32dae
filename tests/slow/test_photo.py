"""A photo becomes the same digit in the page, which reads it in JavaScript, as in Python."""

import shutil
import unittest
from base64 import b64encode
from io import BytesIO

import numpy as np
import torch
from photos import PHOTOS, photo
from PIL import Image

from fmnist import DATA_DIR, four_bit
from inputs.files import read_idx
from judging.samples import classify, load_classifier
from page.contents import PARTS
from reading.photo import photographed

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium")
FIRST = "const LEVELS = 16, SIDE = 28, PIXELS = SIDE * SIDE;" + (
    "const clamped = (value, low, high) => Math.min(high, Math.max(low, value));"
)
READ = """async (address) => {
  const bitmap = await createImageBitmap(await (await fetch(address)).blob());
  return levelsOfPicture(bitmap).map((levels) => [...levels]);
}"""

LABELS = read_idx(DATA_DIR / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").tolist()


class TestAllPhotos(unittest.TestCase):
    def test_the_classifier_reads_all_twenty(self):
        for number, kind in PHOTOS:
            with self.subTest(number=number, kind=kind):
                grey = np.asarray(Image.fromarray(photo(number, kind)).convert("L"))
                images = torch.from_numpy(four_bit(np.stack(photographed(grey)))).unsqueeze(1)
                found = classify(load_classifier(), images)[1].argmax(dim=1).tolist()
                self.assertEqual(found, LABELS[number:][: 1 + (kind == "two")])


@unittest.skipUnless(sync_playwright and CHROMIUM, "needs Chromium and requirements-dev.txt")
class TestOnePreparation(unittest.TestCase):
    def test_photos_become_the_same_in_javascript_as_in_python_to_a_grey_level(self):
        driver = self.enterContext(sync_playwright())
        page = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.add_script_tag(content=FIRST + (PARTS / "paper.js").read_text())
        pictures = {f"{number} {kind}": photo(number, kind) for number, kind in PHOTOS}
        pictures["nothing"] = np.full((300, 200, 3), 240, np.uint8)
        for name, pixels in pictures.items():
            with self.subTest(name):
                content, picture = BytesIO(), Image.fromarray(pixels)
                picture.save(content, "PNG")
                found = page.evaluate(
                    READ, f"data:;base64,{b64encode(content.getvalue()).decode()}"
                )
                expected = photographed(np.asarray(picture.convert("L")))
                self.assertEqual(len(found), len(expected))
                for levels, image in zip(found, expected, strict=True):
                    apart = np.array(levels).reshape(28, 28) - four_bit(image).astype(int)
                    self.assertLessEqual(np.abs(apart).max(), 1)
