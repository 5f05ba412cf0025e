"""Screenshots of TensorBoard: opens its tabs in a headless Chromium and writes docs/images/tensorboard_<tab>.png.

    python docs/images/tensorboard.py runs                # a folder of runs, as `tensorboard --logdir` takes it

Needs chromium and chromium-driver (Debian's packages) and selenium. WebGL is drawn by software.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

FOLDER = Path(__file__).parent
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
MAX_BYTES = 300_000
SIZE = (1400, 1050)
#: JavaScript that finds all elements of a selector, through shadow roots too.
DEEP = """
const found = [], search = (root) => {
  for (const element of root.querySelectorAll('*')) {
    if (element.matches(arguments[0])) found.push(element);
    if (element.shadowRoot) search(element.shadowRoot);
  }
};
search(document);
"""


@contextmanager
def serving(logdir: str, port: int) -> Iterator[str]:
    """TensorBoard's address, while it serves ``logdir``."""
    argv = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        logdir,
        "--port",
        str(port),
        "--load_fast=false",
    ]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    url = f"http://localhost:{port}/"
    try:
        while process.poll() is None and not answers(url):
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether TensorBoard has read some runs."""
    try:
        with urlopen(f"{url}data/runs") as answer:
            return len(answer.read()) > len("[]\n")
    except URLError:
        return False


@contextmanager
def browsing(width: int, height: int) -> Iterator[Chrome]:
    """A browser with a profile of its own."""
    options = ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = Chrome(options, ChromeService("/usr/bin/chromedriver"))
        try:
            yield browser
        finally:
            browser.quit()


def count(browser: Chrome, selector: str) -> int:
    """Elements of a selector, wherever they are."""
    return int(browser.execute_script(DEEP + "return found.length;", selector))


def click(browser: Chrome, selector: str, text: str) -> None:
    """Click the first element of ``selector`` whose text contains ``text``; an error where there is none."""
    script = DEEP + "const it = found.find(e => e.textContent.includes(arguments[1])); it.click();"
    browser.execute_script(script, selector, text)


def wait(browser: Chrome, selector: str, at_least: int = 1, seconds: float = 180) -> None:
    """Until there are so many of them."""
    WebDriverWait(browser, seconds, 1).until(lambda it: count(it, selector) >= at_least)


def close_settings(browser: Chrome) -> None:
    """Close the pane of settings; TensorBoard remembers that it is closed."""
    if count(browser, "metrics-dashboard-settings"):
        click(browser, "button", "Settings")


def scalars(browser: Chrome) -> None:
    """Curves, without the pane of settings."""
    wait(browser, "scalar-card", 4)
    close_settings(browser)


def images(browser: Chrome) -> None:
    """The panels, without the pane of settings."""
    wait(browser, "image-card img", 2)
    close_settings(browser)


def hparams(browser: Chrome) -> None:
    """The table of runs, which is wide and low."""
    browser.set_window_size(2200, 600)
    wait(browser, "vaadin-grid-cell-content", 10)


def projector(browser: Chrome) -> None:
    """The projector draws in a frame of its own, which says nothing of when it is done."""
    wait(browser, "iframe")


#: Tags of the curves that are shown.
CURVES = "agent/(test/return_mean|train/actor_bc_loss)|diffusion/(train/loss|val/loss|fidelity/ks_mean)$"
TABS: dict[str, tuple[str, dict[str, str], Callable[[Chrome], None]]] = {
    "scalars": ("timeseries", {"smoothing": "0", "tagFilter": CURVES}, scalars),
    "images": ("timeseries", {"tagFilter": "(synthesis|decoder)/panels"}, images),
    "hparams": ("hparams", {}, hparams),
    "projector": ("projector", {}, projector),
}


def save(browser: Chrome, path: Path) -> None:
    """A screenshot of few colours, which is small."""
    image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            return
    raise ValueError(f"{path} has {path.stat().st_size} bytes: make the window smaller")


def main() -> None:
    """Open every tab, wait until it shows something, write its picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logdir")
    parser.add_argument("--tabs", nargs="+", default=list(TABS), choices=list(TABS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--port", type=int, default=6123)
    parser.add_argument("--runs", default="", help="regular expression of the runs in curves and panels")
    parser.add_argument("--settle", type=float, default=20, help="seconds between loaded and drawn")
    args = parser.parse_args()
    with serving(args.logdir, args.port) as url, browsing(*SIZE) as browser:
        for tab in args.tabs:
            page, query, ready = TABS[tab]
            browser.set_window_size(*SIZE)
            browser.get("about:blank")  # so that the next address is loaded anew, whatever its fragment
            browser.get(f"{url}?{urlencode({**query, 'runFilter': args.runs})}#{page}")
            ready(browser)
            time.sleep(args.settle)
            save(browser, args.folder / f"tensorboard_{tab}.png")


if __name__ == "__main__":
    main()
