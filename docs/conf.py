"""Sphinx configuration of the documentation: `make docs`, warnings are errors."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from latex2mathml.converter import convert

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "lwfm"
version = release = installed_version("lwfm")
extensions = ["sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton", "myst_nb"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"lwfm {version}"
html_static_path = ["_static"]
html_css_files = ["formulas.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the test suite executes the notebooks

numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes


def setup(app: Sphinx) -> None:
    """Render formulas as MathML, which browsers draw by themselves: no script, no network."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_displayed_formula, None))


def _inline_formula(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    _leave(node)


def _displayed_formula(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f"<div>{convert(node.astext(), display='block')}</div>")
    _leave(node)


def _leave(node: nodes.Node) -> None:
    from docutils.nodes import SkipNode

    del node
    raise SkipNode
