"""The explorer as users see it: in a real browser, on Voila and on JupyterLab."""

import json
import os
import re
import shutil
from io import BytesIO
from pathlib import Path

import pytest

REQUIRED = os.environ.get("DIFFPERTURB_BROWSER_TESTS") == "require"
if not REQUIRED:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")

import browser  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import expect  # noqa: E402

NOTEBOOK = Path("nbs/explore/polytope.ipynb")

pytestmark = pytest.mark.xdist_group("explorer")  # one process, since the server is shared


@pytest.fixture(scope="module", autouse=True)
def chromium():
    """A browser must be there where it is required; elsewhere these tests are skipped without one."""
    if browser.chromium() is None:
        missing = f"no {', '.join(browser.NAMES)} on the PATH (Debian and Ubuntu: apt install chromium)"
        (pytest.fail if REQUIRED else pytest.skip)(missing)


@pytest.fixture
def page():
    """A page that must neither log an error nor ask another host for anything."""
    with browser.opened() as page:
        faults = []

        def requested(request):
            if not re.match(r"(http|ws)://127\.0\.0\.1:|(blob|data|about):", request.url):
                faults.append(f"asked another host: {request.url}")

        page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
        page.on("pageerror", lambda e: faults.append(f"page: {e}"))
        page.on("request", requested)
        yield page
        assert faults == []


@pytest.fixture(scope="module")
def apps(root, tmp_path_factory):
    """The address of the explorers as apps, as `make app` serves them; each visit runs one afresh."""
    with browser.apps(root / NOTEBOOK.parent, home=tmp_path_factory.mktemp("voila")) as address:
        yield address


@pytest.fixture
def lab(root, tmp_path):
    """The address of a copy of the explorer in JupyterLab, without a question about news."""
    work, config = tmp_path / "work", tmp_path / "home" / "config" / "labconfig"
    for folder in (work, config):
        folder.mkdir(parents=True)
    shutil.copy(root / NOTEBOOK, work)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (config / "page_config.json").write_text(json.dumps(quiet))
    args = ["--IdentityProvider.token=", f"--ServerApp.root_dir={work}", "--allow-root"]
    with browser.served("jupyterlab", *args, home=tmp_path / "home") as address:
        yield f"{address}/lab/tree/{NOTEBOOK.name}"


def readout(page):
    return page.locator("[role=status]", has_text="θ =")


def press(page, slider: str, key: str, words: str) -> bytes:
    """The picture after a key on a slider, once the numbers below it read `words`."""
    before = browser.picture(page)
    browser.handle(page, slider).press(key)
    expect(readout(page)).to_contain_text(words)
    return browser.new_picture(page, before)


def try_the_sliders(page):
    """Move every slider by keyboard, and back."""
    first = browser.picture(page)
    assert Image.open(BytesIO(first)).size == (920, 490)
    moved = press(page, "temperature", "ArrowRight", "ε = 1.12")
    assert press(page, "temperature", "ArrowLeft", "ε = 1,") == first != moved
    press(page, "first score", "ArrowLeft", "θ = (0.75, 0.30)")
    press(page, "second score", "ArrowUp", "θ = (0.75, 0.35)")
    press(page, "samples", "Home", "M = 1, ")
    press(page, "samples", "End", "M = 100,000")


def test_the_app_follows_its_sliders(apps, page):
    page.goto(apps)
    page.get_by_role("link", name="polytope").click()
    page.locator("img.widget-image").wait_for()
    expect(page.locator("h1")).to_have_text(re.compile("A perturbed maximizer over a polygon"))
    expect(page.locator("pre, .jp-CodeCell .jp-InputArea")).to_have_count(0)  # no code
    try_the_sliders(page)


def test_the_app_shows_what_is_wrong_with_an_input(apps, page):
    page.goto(f"{apps}/voila/render/{NOTEBOOK.name}")
    page.locator("img.widget-image").wait_for()
    first = browser.picture(page)
    page.get_by_label("polytope").select_option("your own")
    good = browser.new_picture(page, first)
    corners = page.get_by_label("corners")
    corners.fill("0 0, 1 1")
    corners.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("span no polygon; expected at least three")
    assert browser.picture(page) == good
    corners.fill("0 0, 1 0, 0 1")
    corners.press("Enter")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert browser.picture(page) != good


def test_keys_leave_no_queue(apps, page):
    """Sixty steps at once: pictures in between may be dropped, but not the last one."""
    page.goto(f"{apps}/voila/render/{NOTEBOOK.name}")
    page.locator("img.widget-image").wait_for()
    browser.handle(page, "temperature").focus()
    for step in range(60):
        page.keyboard.press("ArrowRight" if step < 25 else "ArrowLeft")
    expect(readout(page)).to_contain_text("ε = 0.316,")  # ten steps below 1
    fast = browser.picture(page)
    assert press(page, "temperature", "ArrowRight", "ε = 0.355,") != fast
    assert press(page, "temperature", "ArrowLeft", "ε = 0.316,") == fast


def test_the_notebook_runs_in_jupyterlab(lab, page):
    page.goto(lab)
    status = page.locator("#jp-main-statusbar")
    expect(status).to_contain_text("Idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator("img.widget-image").wait_for()
    try_the_sliders(page)
