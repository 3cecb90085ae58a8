"""Pages and site: what a reader sees of a notebook, and what a broken one is answered with."""

import base64
import sys
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest
from nbformat import v4
from support import refuses

from diffperturb.workbench import pages, site

RED_DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO"
    "9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
SOURCE = '''
class Samples:
    """What was drawn."""

    solutions: Array  # (M, d)

    def mean(self) -> Array:
        """The mean solution."""
        total = self.solutions.sum(axis=0)
        return total / len(self.solutions)

    def _check(self):
        pass

    def __call__(self, y: Array):
        return jnp.mean(self.solutions == y)


def draw(key,  # a JAX key
         M=10  # how many
         ) -> Samples:
    x = 1
    return Samples(x)
'''


def shown(data, source="show()"):
    return v4.new_code_cell(source, outputs=[v4.new_output("display_data", data)])


def toy():
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Scores with `noise`, at $\\varepsilon = 1$\n\n> One line of purpose."),
            v4.new_markdown_cell("$\\nabla F_\\varepsilon(\\theta)$: see [the start](../index.ipynb)."),
            shown({"image/png": RED_DOT, "text/plain": "<Figure>"}, '#| fig-cap: A dot.\n#| fig-alt: "Red."\nplot()'),
            shown({"text/html": "<table><tr><td>1.5</td></tr></table>", "text/plain": "1.5"}, "table()"),
        ]
    )


@pytest.fixture
def nbs(tmp_path) -> Path:
    """A small site: three pages in the sidebar's order, and one that the sidebar leaves out."""
    folder = tmp_path / "nbs"
    write(folder, "index.ipynb", start("The [module](api/noise.ipynb), `f[0](x)`."))
    write(folder, "theory/scaling.ipynb", toy())
    write(folder, "api/noise.ipynb", start(title="# noise"))
    write(folder, "internals/bits.ipynb", start(title="# bits"))
    (folder / "sidebar.yml").write_text(
        "website:\n  sidebar:\n    contents:\n      - index.ipynb\n      - section: Theory\n        contents: theory/*.ipynb\n"
        "      - section: API\n        contents:\n          - api/noise.ipynb\n"
    )
    (folder / "styles.css").write_text("p { color: black; }")
    return folder


def write(folder, name, nb):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path) if hasattr(nb, "cells") else path.write_text(nb)
    return path


def start(text="", title="# Start"):
    return v4.new_notebook(cells=[v4.new_markdown_cell(f"{title}\n\n{text}")])


def test_pages_come_in_the_order_of_the_sidebar(nbs):
    found = pages.find_pages(nbs)
    names = ["index.html", "theory/scaling.html", "api/noise.html", "internals/bits.html"]
    assert [page.target.as_posix() for page in found] == names
    assert [page.section for page in found] == ["", "Theory", "API", None]
    assert found[1].title == "Scores with noise, at ε = 1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"cells": [', "broken.ipynb is not a valid notebook"),
        (
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "poem"}]}',
            "broken.ipynb is not a valid notebook",
        ),
        (start(title="no heading"), "broken.ipynb has no title"),
    ],
    ids=["cut off", "invalid", "no heading"],
)
def test_a_broken_notebook_is_named(nbs, text, words):
    write(nbs, "theory/broken.ipynb", text)
    refuses(lambda: pages.find_pages(nbs), words, ValueError)


def test_a_sidebar_with_a_lost_page(nbs):
    (nbs / "api" / "noise.ipynb").unlink()
    refuses(
        lambda: pages.find_pages(nbs), "sidebar.yml lists api/noise.ipynb, but there is no such notebook", ValueError
    )


def test_directives():
    assert pages.directives("#| export core\n#| echo: false\nx = 1") == {"export": "core", "echo": "false"}
    assert pages._hidden(pages.directives("#|hide\nx = 1")) and not pages._hidden(pages.directives("x = 1  # a | b"))
    assert pages._DIRECTIVE.sub("", "#| fig-cap: A dot.\nplot()") == "plot()"


def test_outline():
    brief = pages.outline(SOURCE)
    assert "total" not in brief and "_check" not in brief and "# a JAX key" in brief
    assert pages.outline("X = 1\ndef f(): return 1") == "X = 1\ndef f(): return 1"
    text = pages.exported(SOURCE)
    assert "<details" in text and "[]{#samples}[]{#draw}" in text
    assert ">Imports<" in pages.exported("import os")
    assert pages.exported("RATE = 2") == "\n\n```python\nRATE = 2\n```"


def test_static_outputs():
    slider = shown({pages.WIDGET: {"model_id": "7"}, "text/plain": "IntSlider()"})
    framed = shown({pages.WIDGET: {"model_id": "7"}, "text/plain": "Image()", "image/png": RED_DOT})
    record = shown({"application/json": {"accuracy": 0.9}})
    script = shown({"text/html": "<script src='//cdn/x.js'></script>", "text/plain": "a plot"})
    for cell in (slider, framed, record, script):
        pages.static_outputs(cell)
    assert "open the notebook" in slider.outputs[0]["data"]["text/markdown"]
    assert list(framed.outputs[0]["data"]) == ["image/png", "text/plain"]
    assert record.outputs == [] and script.outputs[0]["data"] == {"text/plain": "a plot"}


def test_what_a_reader_sees():
    nb = toy()
    fold = v4.new_code_cell('#| code-fold: true\n#| code-summary: "Show the setup"\nsetup = 1')
    seen = pages.readable(v4.new_notebook(cells=[*nb.cells, fold, v4.new_code_cell("#| hide\nsecret = 1")]))
    assert seen.cells[2].source == "plot()" and "secret" not in str(seen)
    assert nb.cells[2].source.startswith("#| fig-cap: A dot.")  # the original is left alone
    text, pictures = pages.to_markdown(seen, "scaling_files", page=True)
    assert pictures == {"scaling_files/figure_2_0.png": base64.b64decode(RED_DOT)}
    assert "<summary>Show the setup</summary>" in pages.to_markdown(v4.new_notebook(cells=[fold]), "f", page=True)[0]
    text, _ = pages.to_markdown(nb, "scaling_files", page=True)
    assert "#|" not in text and '![A dot.](scaling_files/figure_2_0.png){alt="Red."}' in text
    assert pages.outside_code("a+", "b", "aa `aa` a\n```\naa\n```") == "b `aa` b\n```\naa\n```"


def test_pandoc():
    assert pages.convert("Scores with `noise` at *$\\varepsilon$*", "plain") == "Scores with noise at ε\n"
    refuses(lambda: pages.convert("[@nobody1900]", "html", "--citeproc", name="a.ipynb"), "render a.ipynb", ValueError)
    with patch.dict(sys.modules, pypandoc=None):
        refuses(pages._pandoc.__wrapped__, "pip install 'diffperturb[docs]'", RuntimeError)


def test_links(nbs):
    found = pages.find_pages(nbs)
    assert 'href="../index.html"' in site.sidebar(found, found[1]) and "bits" not in site.sidebar(found, found[1])
    assert site.neighbors(found, found[0]).endswith("at ε = 1</a> →</span>")
    assert site.neighbors(found, found[3]) == ""
    link = site.relink('<a href="../api/noise.ipynb#gumbel">', found[1], found)
    assert link == '<a href="../api/noise.html#gumbel">'
    away = '<a href="https://a.org/b.ipynb">'
    assert site.relink(away, found[1], found) == away
    refuses(lambda: site.relink('<a href="gone.ipynb">', found[2], found), "there is no notebook api/gone", ValueError)


def test_build_and_check(nbs, tmp_path, capsys):
    out = tmp_path / "site"
    assert site.main(["--nbs", str(nbs), "--out", str(out)]) == 0
    page = (out / "theory" / "scaling.html").read_text()
    assert 'alt="Red."' in page and "<math" in page and (out / "theory" / "scaling_files" / "figure_2_0.png").exists()
    assert site.loads_elsewhere(out) == [] and site.dead_links(out) == []
    (out / "bad.html").write_text(
        """<script src="https://cdn.org/a.js"></script><img srcset="//cdn.org/b.png 2x">
        <link rel="stylesheet" href="http://cdn.org/c.css"><link rel="license" href="https://x.org">
        <style>@import "https://cdn.org/d.css";</style><p style="background: url(https://cdn.org/e.png)">"""
    )
    (out / "bad.css").write_text("@font-face { src: url('https://cdn.org/f.woff') }")
    assert len(site.loads_elsewhere(out)) == 6
    (out / "bad.html").write_text('<a href="gone.html">1</a><a href="index.html#nowhere">2</a><a href="#x">3</a>')
    assert len(site.dead_links(out)) == 3
    capsys.readouterr()
    assert site.main(["check", "--out", str(out)]) == 1
    assert "bad.css loads https://cdn.org/f.woff" in capsys.readouterr().out


def test_nothing_is_written_when_a_page_fails(nbs, tmp_path, capsys):
    write(nbs, "theory/uncited.ipynb", start("A [lost page](gone.ipynb)."))
    assert site.main(["--nbs", str(nbs), "--out", str(tmp_path / "site")]) == 1
    assert "there is no notebook theory/gone.ipynb" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_readme(nbs):
    assert site.main(["readme", "--nbs", str(nbs)]) == 0
    assert "[module](nbs/api/noise.ipynb), `f[0](x)`" in (nbs.parent / "README.md").read_text()
