"""Makes the README's pictures of the dashboard from the demo: docs/images/dashboard-light.webp and dashboard-dark.webp.

    python scripts/picture.py                 starts the demo, waits until its charts have something to show
    python scripts/picture.py --url http://127.0.0.1:8000/      of a gateway that runs already
    python scripts/picture.py --flash         docs/images/flash-….webp, by the test that goes through that page

Needs the built dashboard (scripts/build_web.py), Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 720}

# A desktop window with a phone before it, on nothing: what is behind is the page that shows the picture.
SCENE = """<!doctype html>
<style>
  body { margin: 0; width: 1280px; height: 820px; position: relative; background: transparent; }
  img { position: absolute; display: block; border: 1px solid %(edge)s; }
  .wide { left: 0; top: 0; width: 1130px; border-radius: 10px; }
  .phone { right: 8px; bottom: 8px; width: 296px; border-radius: 20px; }
  .phone { box-shadow: 0 0 0 6px %(frame)s, 0 14px 40px #0005; }
</style>
<img class="wide" src="data:image/png;base64,%(wide)s">
<img class="phone" src="data:image/png;base64,%(phone)s">
"""


# A quarter of the PNG's size, and the browser is there anyway.
COMPRESS = """async (png) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/webp", 0.9).split(",")[1];
}"""


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """A running demo's address; it is stopped afterwards."""
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said: list[str] = []
        for line in process.stdout or ():
            said.append(line)
            if found := re.search(r"http://\S+/", line):
                yield found[0]
                return
        raise SystemExit("the demo ended:\n" + "".join(said))
    finally:
        process.terminate()
        process.wait(20)


def pictures(url: str, folder: Path, wait_seconds: float) -> None:
    """Takes them and writes them."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("Chromium is needed (on Debian: apt install chromium)")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.locator(".device .name a").first.wait_for()
        time.sleep(wait_seconds)

        def shot(address: str, ready: str, scheme: Any, viewport: Any) -> str:
            context = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=1)
            view = context.new_page()
            view.goto(address)
            view.locator(ready).first.wait_for()
            # the lines of all rows and the round trip are there a moment later
            view.wait_for_timeout(4000)
            data = view.screenshot()
            context.close()
            return base64.b64encode(data).decode()

        for scheme, edge, frame in (("light", "#d9d8d3", "#30363b"), ("dark", "#343c43", "#0a0d0f")):
            wide = shot(url, ".spark path[d^=M]", scheme, WIDE)
            phone = shot(f"{url}topics/sensors/+/state", ".u-over", scheme, PHONE)
            scene = browser.new_page(viewport={"width": 1280, "height": 820})
            scene.set_content(SCENE % {"wide": wide, "phone": phone, "edge": edge, "frame": frame})
            scene.wait_for_function("[...document.images].every((image) => image.complete)")
            picture = base64.b64encode(scene.screenshot(omit_background=True)).decode()
            path = folder / f"dashboard-{scheme}.webp"
            path.write_bytes(base64.b64decode(scene.evaluate(COMPRESS, picture)))
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {path.stat().st_size // 1024} KiB")
        browser.close()


def flash_pictures(folder: Path) -> None:
    """Takes those of the flash page while its test runs, on a board's program under MicroPython."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/browser/test_flash.py", "-k", "from_nothing_to_its_first"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "FLASH_PICTURES": str(folder.resolve())}, check=True)
    for path in sorted(folder.glob("flash-*.webp")):
        print(f"{path.name}: {path.stat().st_size // 1024} KiB")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the README's pictures of the dashboard.")
    parser.add_argument("--url", help="a running gateway; otherwise a demo is started")
    parser.add_argument(
        "--wait", type=float, default=150, help="seconds of history before the pictures are taken (150)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="where they go (docs/images)")
    parser.add_argument("--flash", action="store_true", help="those of the flash page instead")
    given = parser.parse_args()
    if given.flash:
        flash_pictures(given.out)
        return
    if given.url:
        pictures(given.url.rstrip("/") + "/", given.out, given.wait)
        return
    with demo() as url:
        pictures(url, given.out, given.wait)


if __name__ == "__main__":
    main()
