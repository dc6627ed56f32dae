"""A headless Chromium for tests, driven over its DevTools protocol, with no package in between.

The protocol's messages are JSON with a zero byte at the end, over a pipe each way
(--remote-debugging-pipe): the browser reads its file descriptor 3 and writes to 4.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NoReturn, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio"),
)


class BrowserError(Exception):
    """The page threw an error, or the browser did not do what it was asked for."""


class Browser:
    """One browser with one page at a time, as a context manager.

    Attributes:
        errors: what the page has put on the console, errors and warnings.
        requests: the addresses that it has asked for.
    """

    TIMEOUT = 30  # seconds for any one answer

    def __init__(self):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.numbers = itertools.count(1)
        self.received = b""
        self.session = None

    def __enter__(self) -> Self:
        self.profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        (read_there, self.to_browser), (self.from_browser, write_there) = os.pipe(), os.pipe()
        self.process = subprocess.Popen(
            # dash, Debian's sh, knows descriptors of one digit only
            [
                *("bash", "-c", f'exec "$@" 3<&{read_there} 4>&{write_there}', "bash", FOUND),
                *(*QUIET, "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}"),
                "about:blank",
            ],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.to_browser)  # its end of the pipe is gone, and the browser ends
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.from_browser)
        self.profile.cleanup()

    def _attach(self) -> None:
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.screen()

    def open(self, url: str) -> None:
        """Opens a page, and forgets the errors and requests of the one before."""
        self.call("Page.navigate", url="about:blank")
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def screen(
        self,
        width: int = 1280,
        height: int = 800,
        scale: float = 1,
        dark: bool = False,
        touch: bool = False,
    ) -> None:
        """What the page is told of the screen.

        Args:
            width, height: of the window, in CSS pixels.
            scale: screen pixels per CSS pixel.
            dark: whether the system's colours are dark.
            touch: whether it is a phone.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": touch},
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: object) -> dict:
        """The answer to one command of the protocol.

        Raises:
            BrowserError: the browser refuses it or gives no answer.
        """
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.TIMEOUT
        while True:
            answer = self._message(end, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _message(self, end: float, method: str) -> dict:
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.from_browser], [], [], max(0, end - time.monotonic()))
            part = os.read(self.from_browser, 1 << 20) if ready else self._fail(method)
            self.received += part or self._fail(method)
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def _fail(self, method: str) -> NoReturn:
        raise BrowserError(f"no answer to {method}, exit code {self.process.poll()}")

    def _note(self, event: dict) -> None:
        what, details = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.errors.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif what == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.errors.append(str([value.get("value") for value in details["args"]]))
        elif what == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(details["entry"]["text"])
        elif what == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def run(self, script: str) -> object:
        """The value of a JavaScript expression in the page; a promise is waited for.

        Raises:
            BrowserError: it throws.
        """
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + self.TIMEOUT
        while not self.run(condition):
            if time.monotonic() > end:
                raise BrowserError(f"in vain: {condition}")
            time.sleep(0.02)

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """Where in the window a place in an element is, which is first scrolled into view."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"{find}.getBoundingClientRect().toJSON()")
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def mouse(self, kind: str, x: float, y: float, pressed: bool = True) -> None:
        button = "left" if pressed else "none"
        self.call(
            *("Input.dispatchMouseEvent",),
            **{"type": kind, "x": x, "y": y, "button": button, "buttons": int(pressed)},
            clickCount=1,
        )

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """A real click, which reaches whatever lies on top there."""
        x, y = self.place(selector, across, down)
        self.mouse("mouseMoved", x, y, pressed=False)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def drag(self, selector: str, places: list[tuple[float, float]]) -> None:
        """A stroke of the mouse from place to place in an element, both in 0..1."""
        x, y = self.place(selector)
        corner_x, corner_y = self.place(selector, 0, 0)
        points = [
            (corner_x + 2 * (x - corner_x) * across, corner_y + 2 * (y - corner_y) * down)
            for across, down in places
        ]
        self.mouse("mousePressed", *points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
        self.mouse("mouseReleased", *points[-1])

    def key(self, key: str) -> None:
        """A key that is pressed and released; a name as in KeyboardEvent.key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            code = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
            code |= {" ": 32, "Enter": 13, "Delete": 46}
            self.call(
                "Input.dispatchKeyEvent",
                **{"type": kind, "key": key, "windowsVirtualKeyCode": code.get(key, 0), **text},
            )

    def screenshot(self, file: str | Path, whole: bool = False) -> None:
        """A picture of the window, or of the whole page."""
        options = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options = {"captureBeyondViewport": True, "clip": {**size, "x": 0, "y": 0, "scale": 1}}
        picture = self.call("Page.captureScreenshot", format="png", **options)["data"]
        Path(file).write_bytes(base64.b64decode(picture))
