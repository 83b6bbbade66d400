"""Parts of documents that ask for other parts: sentences, headings with their sections, summary
lines of docstrings with the rest."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping

from icr_rag.profiling.terms import is_unspaced
from icr_rag.types import Document

#: Behind the marks that end sentences: of Latin, Greek, Cyrillic and Arabic scripts where a space
#: follows, of East Asian and Indic ones anywhere.
_SENTENCE_END = re.compile(r"(?<=[.!?؟۔…])\s+|(?<=[。！？।॥])\s*")
_FENCE = re.compile(r"\s{0,3}```")
_HASHES = re.compile(r"#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r"([=\-~^\"'#*+.:_])\1{2,}[ \t]*$")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the white space between them."""
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


def join_sentences(parts: list[str]) -> str:
    """Sentences as a text, with spaces where their script has them."""
    text = " ".join(parts)
    return "".join(parts) if is_unspaced(text) else text


def sections(documents: Mapping[str, Document]) -> dict[str, Document]:
    """The sections of Markdown and reST documents: their text, with the heading as title.

    Headings that stand in several places, of which none knows which section they ask for, are left
    out with their sections.
    """
    found = {
        f"{name}#section-{number}": Document(text, title)
        for name, document in documents.items()
        for number, (title, text) in enumerate(_sections(document.text))
    }
    return _unique(found)


def docstrings(documents: Mapping[str, Document]) -> dict[str, Document]:
    """The docstrings of Python files: what follows the summary line, with that as title.

    Documents that are no Python have none; of equal summaries none is kept.
    """
    found = {
        f"{name}#{place}": Document(rest, summary)
        for name, document in documents.items()
        for place, summary, rest in _docstrings(document.text)
    }
    return _unique(found)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Heading and text of each section."""
    title: str | None = None
    body: list[str] = []
    fenced = False
    lines = text.split("\n")
    for number, line in enumerate(lines):
        fenced ^= _FENCE.match(line) is not None
        below = lines[number + 1] if number + 1 < len(lines) else ""
        hashes = None if fenced else _HASHES.match(line)
        # A line as long as the one above it, which is a heading and no paragraph's last line.
        underlined = (
            not fenced
            and bool(line.strip())
            and not _UNDERLINE.match(line)
            and _UNDERLINE.match(below) is not None
            and len(below.rstrip()) >= len(line.rstrip())
            and (number == 0 or not lines[number - 1].strip() or _is_rule(lines[number - 1]))
        )
        if hashes is not None or underlined:
            if title is not None:
                yield title, _text(body)
            title, body = (hashes[1] if hashes is not None else line).strip(), []
        elif not (_is_rule(line) and not fenced):
            body.append(line)
    if title is not None:
        yield title, _text(body)


def _is_rule(line: str) -> bool:
    return _UNDERLINE.match(line) is not None


def _text(lines: list[str]) -> str:
    return "\n".join(lines).strip()


def _docstrings(text: str) -> Iterator[tuple[str, str, str]]:
    """Place, summary line and the rest of each docstring that has both."""
    if '"""' not in text and "'''" not in text:
        return
    try:
        with warnings.catch_warnings():
            # Of what the file's author wrote, not of what its reader does.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            cleaned = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            summary, _, rest = cleaned.partition("\n\n")
            if "(" in summary.split(" ")[0]:
                # A signature stands before the summary.
                summary, _, rest = rest.partition("\n\n")
            if summary.strip() and rest.strip():
                line = 1 if isinstance(node, ast.Module) else node.lineno
                yield str(line), " ".join(summary.split()), rest.strip()


def _unique(found: dict[str, Document]) -> dict[str, Document]:
    count = Counter((document.title or "").lower() for document in found.values())
    return {name: own for name, own in found.items() if count[(own.title or "").lower()] == 1}
