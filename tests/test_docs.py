"""The documentation's preview, built from the notebooks of this checkout."""

import gc
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from diffperturb.workbench import site

pytestmark = pytest.mark.xdist_group("docs")  # one process, for what they share is made once


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    gc.disable()  # CPython 3.11: parsing fails where a collection, of JAX's objects say, parses as well (gh-106905)
    try:
        return site.build(root / "nbs", tmp_path_factory.mktemp("site")).parent
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def notebooks(root) -> list[Path]:
    paths = [path.relative_to(root / "nbs") for path in (root / "nbs").rglob("*.ipynb")]
    return [path for path in paths if not any(part[0] in "._" for part in path.parts)]


@pytest.fixture(scope="module")
def pages(built) -> dict[str, BeautifulSoup]:
    paths = sorted(built.rglob("*.html"))
    return {path.relative_to(built).as_posix(): BeautifulSoup(path.read_text(), "html.parser") for path in paths}


@pytest.fixture(scope="module")
def prose(pages) -> dict[str, str]:
    """The text of each page without its code and its mathematics."""

    def text(soup):
        soup = BeautifulSoup(str(soup.main), "html.parser")
        for tag in soup.find_all(["pre", "code", "math"]):
            tag.decompose()
        return soup.get_text()

    return {name: text(soup) for name, soup in pages.items()}


def test_a_page_for_each_notebook(pages, notebooks):
    names = {re.sub(r"/\d+_", "/", f"/{path.with_suffix('.html').as_posix()}")[1:] for path in notebooks}
    assert set(pages) == names
    for name, soup in pages.items():
        assert soup.title.get_text() and soup.main.h1.get_text(), name


def test_every_page_leads_to_every_page(pages, built):
    assert site.dead_links(built) == []
    for name, soup in pages.items():
        links = soup.select("nav.pages a")
        found = {(built / name).parent.joinpath(a["href"]).resolve() for a in links}
        assert found == {(built / other).resolve() for other in pages}, name
        assert [a.get_text() for a in links if a.get("aria-current")] == [soup.title.get_text()]


def test_nothing_is_loaded_from_elsewhere(built):
    assert site.loads_elsewhere(built) == []
    assert "<script" not in "".join(path.read_text() for path in built.rglob("*.html"))


def test_links_work_from_any_folder(pages):
    for name, soup in pages.items():
        for tag in soup.find_all(href=True) + soup.find_all(src=True):
            assert not tag.get("href", tag.get("src")).startswith("/"), f"{name}: {tag}"


def test_citations_are_resolved(prose, pages):
    for name, text in prose.items():
        assert not re.search(r"@\w+\d{4}", text), name
    cited = [soup for soup in pages.values() if soup.select("[data-cites]")]
    assert cited and all(soup.select("#refs .csl-entry") for soup in cited)


def test_mathematics_is_mathml(prose, pages):
    for name, text in prose.items():
        assert "$$" not in text and "\\varepsilon" not in text, name
    assert any(soup.find("math", display="block") for soup in pages.values())


def test_comments_for_the_tools_are_gone(pages):
    for name, soup in pages.items():
        for line in soup.main.get_text().splitlines():
            assert not re.match(r"\s*#\s*\|", line), f"{name}: {line}"


def test_pictures_are_there(pages, built):
    pictures = [(name, img) for name, soup in pages.items() for img in soup.select("main img")]
    assert pictures
    for name, img in pictures:
        assert (built / name).parent.joinpath(img["src"]).stat().st_size > 100, f"{name}: {img}"
