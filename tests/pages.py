"""What the documents say: their text, and the blocks of code in it."""

import re
from pathlib import Path

from imports import ROOT

# Every document of the project by its path from the root.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data/own/README.md"],
    )
    if "_build" not in path.parts
}


def read_blocks(language: str) -> list[str]:
    """The blocks of code in a language, of all documents."""
    return [
        block
        for text in PAGES.values()
        for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def read_section(page: str, title: str) -> str:
    """The text below a heading of a page, up to the next one."""
    section = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    assert section, title
    return section[1]


def slugify(heading: str) -> str:
    """The anchor that GitHub and Sphinx give a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def list_anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings; a line of code is none."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {slugify(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
