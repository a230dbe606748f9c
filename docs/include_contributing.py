"""A hook of mkdocs: the page on contributing shows the text of CONTRIBUTING.md, so that there is one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """The text of CONTRIBUTING.md for its page, with links as seen from docs/pages; every other page as it is."""
    if page.file.src_uri != "contributing.md":
        return markdown
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.replace("](docs/pages/", "](").replace("[README](README.md#read-the-code)", "README")
