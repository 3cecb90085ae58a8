"""A real browser on a real server: what the explorer's tests and its benchmark share."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

PATIENCE = 120  # seconds, for the slowest machine
NAMES = ("chromium", "chromium-browser", "google-chrome")
# keeps the browser itself from asking other hosts; the page is tested for that
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run", "--no-default-browser-check"]

HOMES = {  # folders that Jupyter would otherwise place in the user's home
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}


def chromium() -> str | None:
    """The path of an installed chromium: the system's or playwright's own."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as p:
        path = p.chromium.executable_path
    return path if Path(path).exists() else None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _wait_until_open(port: int, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}:\n{log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no server on port {port} after {PATIENCE} s:\n{log.read_text()}")


@contextmanager
def served(module: str, *args: str, home: Path, **env: str) -> Iterator[str]:
    """The address of a Jupyter server that keeps its settings, its state and its log in `home`."""
    port, log = free_port(), home / "server.log"
    home.mkdir(parents=True, exist_ok=True)
    env = os.environ | {name: str(home / folder) for name, folder in HOMES.items()} | env
    command = [sys.executable, "-m", module, *args, f"--port={port}", "--no-browser"]
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True
        )
    try:
        _wait_until_open(port, server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server)


def stop(server: subprocess.Popen) -> None:
    """End a server and its kernels."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, how)
            server.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


@contextmanager
def opened(size=(1280, 900)) -> Iterator[Page]:
    """An empty page of a browser."""
    flags = QUIET + (["--no-sandbox"] if os.getuid() == 0 else [])
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=flags)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.set_default_timeout(1000 * PATIENCE)
        expect.set_options(timeout=1000 * PATIENCE)
        yield page
        browser.close()


def handle(page: Page, name: str):
    """The handle of the slider with this description, which arrow keys move."""
    return page.locator(".widget-slider", has_text=name).locator(".noUi-handle")


_BYTES = """async img => {
  const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
  return btoa(Array.from(bytes, b => String.fromCharCode(b)).join(""));
}"""


def picture(page: Page) -> bytes:
    """The bytes of the picture that the page shows."""
    return base64.b64decode(page.locator("img.widget-image").evaluate(_BYTES))


def new_picture(page: Page, before: bytes) -> bytes:
    """The bytes of the picture once they differ from those before."""
    end = time.monotonic() + PATIENCE
    while (now := picture(page)) == before:
        if time.monotonic() > end:
            raise AssertionError(f"the picture did not change in {PATIENCE} s")
        page.wait_for_timeout(20)
    return now


@contextmanager
def apps(folder: Path, home: Path) -> Iterator[str]:
    """The address of a folder of notebooks that Voila serves, as with `make app`."""
    template = {"JUPYTER_PATH": str(folder / ".voila")}
    with served("voila", str(folder), "--template=explorer", home=home, **template) as address:
        yield address
