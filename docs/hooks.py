"""For mkdocs: roles of docstrings, such as :func:`name`, become links where the name has a place in the reference."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:py:)?(?:mod|func|class|meth|attr|data):<code>~?([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    return ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', html)
