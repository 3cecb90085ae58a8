"""How long from a key on a slider to the new picture, in a real browser.

    python benchmarks/explorer.py [--moves 40] [--json FILE]

Serves nbs/explore/polytope.ipynb by Voila, opens it in chromium at its default settings, moves the
slider of the temperature by arrow keys, one key after the other, and measures within the page from
the key event to the first animation frame that has the new picture: the browser's message, the
kernel's draws, distribution and path, the figure, its PNG, and its way back. Measure on a machine
that does nothing else.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402

WATCH = """img => {
  window.delays = [];
  let pressed = null;
  document.addEventListener("keydown", event => { pressed = event.timeStamp; }, true);
  img.addEventListener("load", () => requestAnimationFrame(() => {
    if (pressed !== null) window.delays.push(performance.now() - pressed);
    pressed = null;
  }));
}"""


def measure(moves: int) -> dict:
    """Delays in milliseconds, one for each move, and the seconds until the first picture."""
    with (
        tempfile.TemporaryDirectory() as home,
        browser.apps(ROOT / "nbs/explore", home=Path(home)) as address,
        browser.opened() as page,
    ):
        start = time.monotonic()
        page.goto(f"{address}/voila/render/polytope.ipynb")
        page.locator("img.widget-image").wait_for()
        first = time.monotonic() - start
        page.locator("img.widget-image").evaluate(WATCH)
        handle = browser.handle(page, "temperature")
        for done in range(moves):
            handle.press("ArrowRight" if done < moves / 2 else "ArrowLeft")
            page.wait_for_function("done => window.delays.length > done", arg=done)
        return {"delays_ms": page.evaluate("window.delays"), "first_picture_s": first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moves", type=int, default=40, help="keys to press (default 40)")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    args = parser.parse_args()
    if browser.chromium() is None:
        sys.exit(f"no browser: none of {', '.join(browser.NAMES)} is on the PATH; install chromium")
    found = measure(args.moves)
    delays = found["delays_ms"]
    found |= {"median_ms": statistics.median(delays), "worst_ms": max(delays)}
    found |= {"moves": len(delays), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    print(f"first picture {found['first_picture_s']:.1f} s after the page was asked for")
    print(
        f"slider to picture, {len(delays)} moves: median {found['median_ms']:.0f} ms, "
        f"worst {found['worst_ms']:.0f} ms ({found['cpus']} CPUs, load {found['load']:.1f})"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
