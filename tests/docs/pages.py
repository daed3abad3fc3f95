"""The pages of the documentation, and the code on them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """Python and shell of a page, in order."""
    text = ((ROOT if page == "README" else DOCS) / f"{page}.md").read_text("utf-8")
    found = re.findall(r"^( *)```(python|bash)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [(kind, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)) for indent, kind, code in found]
