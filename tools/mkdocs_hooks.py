"""What the documentation's pages need beyond their Markdown: the README as first page, code links, formulas.

The README and docs/*.md are written to be read in the repository; these hooks adapt them to the site.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """The README is the first page; its links into docs/ lead to their pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r'(\]\(|src=")docs/', r"\1", readme)
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the README lead to the first page; those to code, which is no page, become its name."""
    here = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path, _, anchor = target.partition("#")
        if not path or "://" in path:
            return match[0]
        start = "" if page.file.src_uri == "index.md" else posixpath.join("docs", here)
        place = posixpath.normpath(posixpath.join(start, path))  # from the repository's root
        if place == "README.md":
            home = posixpath.relpath("index.md", here or ".")
            return f"[{text}]({home}{'#' + anchor if anchor else ''})"
        on_the_site = place.startswith("docs/") or (page.file.src_uri == "index.md" and _is_page(place))
        return match[0] if on_the_site else text

    return LINK.sub(replaced, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """LaTeX becomes MathML, which browsers draw without a script."""

    def replaced(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        return convert(html.unescape(match[3].strip()), display=display)

    return FORMULA.sub(replaced, content)


def _is_page(place: str) -> bool:
    return (ROOT / "docs" / place).exists()
