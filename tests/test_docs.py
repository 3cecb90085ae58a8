"""The documentation's preview, built from the notebooks of this checkout."""

import gc
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from diffperturb.workbench import site
from diffperturb.workbench.pages import sidebar_order

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
    assert set(pages) == {path.with_suffix(".html").as_posix() for path in notebooks}
    for name, soup in pages.items():
        assert soup.title.get_text() and soup.main.h1.get_text(), name


def test_the_sidebar_leads_from_every_page_to_every_listed_page(pages, built, root):
    assert site.dead_links(built) == []
    listed = [Path(name).with_suffix(".html") for name in sidebar_order(root / "nbs")]
    for name, soup in pages.items():
        links = soup.select("nav.pages a")
        found = [(built / name).parent.joinpath(a["href"]).resolve() for a in links]
        assert found == [(built / other).resolve() for other in listed], name
        current = [a.get_text() for a in links if a.get("aria-current")]
        assert current == ([soup.title.get_text()] if Path(name) in listed else [])


def test_nothing_is_loaded_from_elsewhere(built):
    assert site.loads_elsewhere(built) == []
    assert "<script" not in "".join(path.read_text() for path in built.rglob("*.html"))


def test_links_work_from_any_folder(pages):
    for name, soup in pages.items():
        for tag in soup.find_all(href=True) + soup.find_all(src=True):
            assert not tag.get("href", tag.get("src")).startswith("/"), f"{name}: {tag}"


def test_references_lead_to_an_entry(pages):
    """Links to the references name an entry; `dead_links` checks that it exists."""
    links = [a["href"] for soup in pages.values() for a in soup.main.select('a[href*="references.html"]')]
    assert (
        len(links) > 20 and [href for href in links if "#" not in href and not href.endswith("references.html")] == []
    )


def test_no_citation_is_left_unresolved(prose):
    for name, text in prose.items():
        assert not re.search(r"\[?@\w+\d{4}", text), name


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
        assert len(img.get("alt", "")) > 15, f"{name}: {img} has no alternative text"
