"""Write the tables of docs/scoring.md from the table of methods.

    python scripts/generate_method_docs.py

A test compares, so that the page stays true.
"""

from __future__ import annotations

import re
from pathlib import Path

from icr_rag.methods import Method, methods, with_explained

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scoring.md"
BEGIN = (
    "<!-- The table is written by scripts/generate_method_docs.py from icr_rag/methods.py. -->\n"
)
END = "\n<!-- End of the table. -->"
BEGIN_EXPLAINED = "<!-- Of the same table: what score_mode=explained is. -->\n"


def table() -> str:
    """A row per method."""
    lines = [
        "| scoring | framework | what is compared | calls | kept states | source |",
        "|---|---|---|---|---|---|",
    ]
    before = ""
    for row in methods():
        scoring = "" if row.scoring == before else f"`{row.scoring}`"
        before = row.scoring
        kept = ", ".join(f"`{name}`" for name in row.document_states if name != "joint")
        cells = (scoring, _framework(row), row.compares, row.cost, kept or "none", row.source)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def explained_table() -> str:
    """A row per method that has absolute scores."""
    lines = ['| scoring | framework | `score_mode="explained"` |', "|---|---|---|"]
    lines += [
        f"| `{row.scoring}` | {_framework(row)} | {row.explained} |" for row in with_explained()
    ]
    return "\n".join(lines) + "\n"


def _framework(row: Method) -> str:
    variant = f', `likelihood="{row.variant}"`' if row.variant else ""
    return f"`{row.framework}`{variant}"


def render(page: str) -> str:
    """The page with both tables as they are now."""
    for begin, written in ((BEGIN, table()), (BEGIN_EXPLAINED, explained_table())):
        pattern = re.escape(begin) + ".*?" + re.escape(END)
        new = begin + "\n" + written + END
        page = re.sub(pattern, lambda _, new=new: new, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
