"""How many frames a second the page keeps while messages come: `python -m benchmarks.page [--check]`.

It starts Mosquitto, the gateway and the simulator, opens views in Chromium one after the other, counts the frames of
each for some seconds, and notes how much processor time the page's main thread took: a busy machine takes frames away,
but adds nothing to that. `--every-line` draws all devices instead of the first eight.

Needs the built dashboard, Mosquitto, Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.processes import HOST, BenchmarkError, Gateway, Mosquitto, Process, scratch_directory

VIEWS = {
    "devices": ("", ".device"),
    "topics": ("?view=topics", ".t-row"),
    "filter": ("topics/sensors/+/state", ".legend .entry"),
    "quantity": ("?view=quantity&of=temperature", ".legend .entry"),
    "quantity, a minute": ("?view=quantity&of=temperature&since=1m", ".legend .entry"),
}
"""What is opened, and what has to be there before frames are counted."""

LEAST_FRAMES = 50
"""Frames a second that `--check` asks for."""

_COUNT = """(milliseconds) => new Promise((done) => {
  const times = [];
  const end = performance.now() + milliseconds;
  const frame = (now) => {
    times.push(now);
    if (performance.now() < end) requestAnimationFrame(frame);
    else done(times);
  };
  requestAnimationFrame(frame);
})"""

_SHOW_ALL = """async () => {
  for (let left = 100; left > 0; left--) {
    const button = document.querySelector(".legend .entry button[aria-pressed=false]:not(.only)");
    if (!button) return;
    button.click();
    await new Promise((done) => setTimeout(done, 50));
  }
}"""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of a view.

    Attributes:
        per_second: how many were drawn in a second.
        worst_ms: the longest time between two.
        busy: part of the time that the page's main thread worked, by its processor time.
    """

    per_second: float
    worst_ms: float
    busy: float


def frames_of(times: Sequence[float], busy: float) -> Frames:
    """What came of the times of frames, in milliseconds. Pure.

    Raises:
        BenchmarkError: there were fewer than two.
    """
    if len(times) < 2:
        raise BenchmarkError("the page drew no two frames")
    return Frames(
        1000 * (len(times) - 1) / (times[-1] - times[0]), max(after - before for before, after in pairwise(times)), busy
    )


def _work(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


def measured(page: Any, seconds: float) -> Frames:
    """Count the frames of a page that is open."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before, began = _work(session), time.monotonic()
    times = page.evaluate(_COUNT, 1000 * seconds)
    return frames_of(times, (_work(session) - before) / (time.monotonic() - began))


def run(options: argparse.Namespace) -> dict[str, Frames]:
    """Measure each view."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise BenchmarkError("Chromium is not on the PATH: install it (apt install chromium)")
    found: dict[str, Frames] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(scratch_directory())
        mosquitto = stack.enter_context(Mosquitto(directory, None))
        gateway = stack.enter_context(Gateway(directory, None, mosquitto.port))
        rate = str(options.rate / options.devices)
        simulator = [sys.executable, "-m", "sensors_sim", "--devices", str(options.devices), "--rate", rate, "--plain"]
        simulator += [
            "--qos",
            "0",
            "--seed",
            "1",
            "--shared-clients",
            "4",
            "--broker",
            f"mqtt://{HOST}:{mosquitto.port}",
        ]
        stack.enter_context(Process("simulator", simulator, directory))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=program, args=["--no-sandbox"])
        stack.callback(browser.close)
        for name, (address, ready) in VIEWS.items():
            if options.views and name not in options.views:
                continue
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"http://{HOST}:{gateway.port}/{address}")
            page.locator(ready).first.wait_for()
            if options.every_line:
                page.evaluate(_SHOW_ALL)
            page.wait_for_timeout(1000 * options.warm)
            found[name] = frames = measured(page, options.seconds)
            print(
                f"{name}: {frames.per_second:.1f} frames/s, the longest {frames.worst_ms:.0f} ms, main thread "
                f"{100 * frames.busy:.1f} % busy (load {os.getloadavg()[0]:.1f})",
                flush=True,
            )
            page.close()
    return found


def main(argv: list[str] | None = None) -> int:
    """The command; 1 where `--check` asks for more than there was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="Frames that the page keeps.")
    parser.add_argument("views", nargs="*", metavar="VIEW", help=f"views to measure: {'; '.join(VIEWS)} (all)")
    parser.add_argument("--rate", type=float, default=2000, help="messages a second of all devices (2000)")
    parser.add_argument("--devices", type=int, default=20, help="devices that send them (20)")
    parser.add_argument("--seconds", type=float, default=10, help="how long frames are counted (10)")
    parser.add_argument("--warm", type=float, default=20, help="seconds that a view is open before (20)")
    parser.add_argument("--every-line", action="store_true", help="draw a line for each device")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 below {LEAST_FRAMES} frames a second")
    options = parser.parse_args(argv)
    if unknown := set(options.views) - VIEWS.keys():
        parser.error(f"no such view: {', '.join(sorted(unknown))}")
    try:
        found = run(options)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if options.check and min(each.per_second for each in found.values()) < LEAST_FRAMES else 0


if __name__ == "__main__":
    sys.exit(main())
