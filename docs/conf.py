"""Settings of the site: `make docs` builds it, with every warning an error."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), *(str(ROOT / source) for source in ("inference", "training", "export"))]

import causcell  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = "CausCell"
author = PROJECT["authors"][0]["name"]
release = causcell.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "generated_pages",
]
source_suffix = {".md": "myst-nb"}  # pages with a kernel in their header are notebooks, the others Markdown
exclude_patterns = ["_build", "_ext"]
source_url = PROJECT["urls"]["Source"]  # what pages link to outside docs/ is there

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Notebooks run whenever their page is read, each in a folder of its own; what goes wrong in one ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600  # seconds a cell
nb_merge_streams = True
os.environ["CAUSCELL_CHECKOUT"] = str(ROOT)  # where hidden cells find the model that is checked in

default_role = "py:obj"  # docstrings name things in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "sphinx_book_theme"
html_title = "CausCell"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "icon_links": [{"name": "Source", "url": source_url, "icon": "fa-solid fa-code"}],
}
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
highlight_language = "none"
