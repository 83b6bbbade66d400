"""Questions with answers in many languages and of unlike kinds, from Debian's documentation.

    python benchmarks/teaching_texts.py --out texts

Writes a BEIR folder with a first-stage run per domain, for `icr-rag profile` and
`benchmarks/teaching.py`:

- faq: the questions of the Debian FAQ (de, en, fr, it, ja, nl, ru, zh) and of Perl's (en);
- manuals: what a command or call does, in a few words, asks for its description (de, en, es, fr,
  it, ja, pl, pt, ru, zh);
- reference: headings and sentences of the Debian reference (de, en, es, fr, it, ja, pt, zh), of the
  Debian handbook and of Git's manuals (en) ask for their sections;
- code: summary lines of Python's docstrings ask for the rest.

A query's relevant document is the one that it was taken from; the others are those of the same
language and origin that BM25 finds for it. Packages come from Debian's archive by
``apt-get download``; nothing is installed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib
import inspect
import json
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bm25s
from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning

from icr_rag import Document

FAQ = ("de", "en", "fr", "it", "ja", "nl", "ru", "zh-cn")
REFERENCE = ("de", "en", "es", "fr", "it", "ja", "pt", "zh-cn")
MANUALS = {"de": "de", "en": "", "es": "es", "fr": "fr", "it": "it", "ja": "ja", "pl": "pl",
           "pt": "pt_BR", "ru": "ru", "zh": "zh_CN"}  # fmt: skip
MANPAGES = ("de", "es", "fr", "it", "ja", "pl", "pt-br", "ru", "zh")
PACKAGES = (
    ["debian-faq", "perl-doc", "git-doc", "debian-handbook", "manpages", "manpages-dev"]
    + [f"debian-faq-{language}" for language in FAQ if language != "en"]
    + [f"debian-reference-{language}" for language in REFERENCE]
    + [
        f"manpages-{language}"
        for language in ["de", "es", "fr", "it", "ja", "pl", "pt-br", "ru", "zh"]
    ]
)
MODULES = (
    "argparse asyncio collections concurrent.futures contextlib csv datetime decimal difflib email "
    "fractions functools heapq html http inspect ipaddress itertools json logging multiprocessing "
    "numpy numpy.fft numpy.linalg numpy.ma numpy.random os pathlib pickle random re shutil socket "
    "sqlite3 statistics string subprocess tempfile textwrap threading time torch "
    "torch.distributions torch.nn torch.nn.functional torch.optim torch.utils.data typing unittest "
    "urllib.parse urllib.request uuid zipfile"
)
#: Scripts that put no space between words: each pair of characters is a term.
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
#: How many characters a text has at least; one of these scripts says three times as much.
_LEAST = 200
_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]


@dataclass(frozen=True)
class Pair:
    """A query, the text that answers it, and those among which the others are sought."""

    query: str
    text: str
    language: str
    origin: str


def unpack(folder: Path) -> Path:
    """Debian's packages, unpacked under ``folder``."""
    root = folder / "packages"
    done = root / "unpacked"
    if not done.is_file():
        root.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            subprocess.run(["apt-get", "download", package], cwd=root, check=True)
        for archive in sorted(root.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
        done.touch()
    return root


def sections(page: Path) -> Iterator[tuple[str, str]]:
    """Headings of a page and the text up to the next one."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "lxml")
    for junk in soup.select("div.toc, div.navheader, div.navfooter, pre, script, style, table"):
        junk.decompose()
    heading, parts = "", list[str]()
    for tag in soup.find_all([*_HEADINGS, "p", "dt"]):
        if not isinstance(tag, Tag):
            continue
        text = " ".join(tag.get_text(" ").split())
        if tag.name in _HEADINGS:
            if heading:
                yield heading, " ".join(parts)
            heading, parts = text, []
        elif text:
            parts.append(text)
    if heading:
        yield heading, " ".join(parts)


def numbered(heading: str) -> str:
    """A heading without its number: ``3.2.1.``, ``Chapter 4.``, ``第 1 章``."""
    return re.sub(r"^(\S+\s+)?\d+(\.\d+)*\.?\s*(章)?\.?\s*|^[A-Z]\.\d+(\.\d+)*\.\s*", "", heading)


def faq(root: Path) -> Iterator[Pair]:
    for language in FAQ:
        folder = root / "usr/share/doc/debian/FAQ"
        pages = folder.glob("*.en.html") if language == "en" else (folder / language).glob("*.html")
        for page in sorted(pages):
            for heading, text in sections(page):
                yield Pair(numbered(heading), text, language[:2], "debian")
    for page in sorted((root / "usr/share/perl").glob("*/pod/perlfaq?.pod")):
        for part in re.split(r"^=head2 ", page.read_text(encoding="utf-8"), flags=re.M)[1:]:
            question, _, rest = part.partition("\n")
            prose = [p for p in re.split(r"\n\s*\n", rest) if not p.startswith((" ", "=", "\t"))]
            text = " ".join(" ".join(prose).split())
            yield Pair(plain_pod(question), plain_pod(text), "en", "perl")


def plain_pod(text: str) -> str:
    """Without the marks of Perl's documentation."""
    return re.sub(r"[A-Z]<+\s*(?:[^<>|]*\|)?([^<>]*?)\s*>+", r"\1", text)


def manuals(root: Path) -> Iterator[Pair]:
    for language, folder in MANUALS.items():
        for page in sorted((root / "usr/share/man" / folder).glob("man[1-8]/*.gz")):
            raw = gzip.decompress(page.read_bytes())
            try:
                parts = roff(raw.decode("utf-8"))
            except UnicodeDecodeError:
                continue
            # The first section is the name, and what it is; the longest tells how.
            if len(parts) < 3:
                continue
            _, _, purpose = parts[0].partition(" - ")
            yield Pair(purpose, max(parts[1:4], key=len), language, f"manuals {page.parent.name}")


def roff(source: str) -> list[str]:
    """The sections of a manual page as plain text."""
    found: list[list[str]] = []
    for line in source.splitlines():
        if line.startswith((".SH", ".Sh")):
            found.append([])
        elif line.startswith(('."', '.\\"', "'\\\"")) or not found:
            continue
        elif line.startswith("."):
            name, _, rest = line[1:].partition(" ")
            if name == "Nd":
                rest = f"- {rest}"
            if name in ("B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "Nm", "Nd", "Fl", "Ar"):
                found[-1].append(rest.replace('"', ""))
        else:
            found[-1].append(line)
    texts = (" ".join(" ".join(part).split()) for part in found)
    return [re.sub(r"\\f\(?..?(?=\W|$)|\\f.|\\[&/,|^%]|\\s[-+]?\d", "", text)
            .replace("\\-", "-").replace("\\(aq", "'").replace("\\(en", "-").replace("\\ ", " ")
            .replace("\\e", "\\") for text in texts]  # fmt: skip


def reference(root: Path) -> Iterator[Pair]:
    pages = [
        (language[:2], "reference", page)
        for language in REFERENCE
        for page in (root / "usr/share/debian-reference").glob(f"*.{language}.html")
    ]
    doc = root / "usr/share/doc"
    pages += [
        ("en", "handbook", page)
        for page in (doc / "debian-handbook/html/en-US").glob("sect.*.html")
    ]
    pages += [("en", "git", page) for page in (doc / "git-doc").glob("git*.html")]
    for number, (language, origin, page) in enumerate(sorted(pages, key=lambda item: str(item[2]))):
        for heading, text in sections(page):
            yield Pair(numbered(heading), text, language, origin)
            # A sentence of the middle asks for what stands around it.
            cut = re.split(r"(?<=[.!?])\s+|(?<=。)", text)
            place = len(cut) // 2
            rest = " ".join(cut[:place] + cut[place + 1 :])
            if number % 2 and len(cut) > 3 and cut[place] not in rest:
                yield Pair(cut[place], rest, language, f"{origin}, sentences")


def docstrings() -> dict[str, Document]:
    """Summary lines as titles, with at least 50 words behind them."""
    found: dict[str, Document] = {}
    titles = set()
    for name in MODULES.split():
        module = importlib.import_module(name)
        for member in sorted(vars(module)):
            if member.startswith("_"):
                continue
            text = inspect.getdoc(getattr(module, member, None)) or ""
            first, _, rest = text.partition("\n\n")
            if text.startswith(member) or "(" in first.split(" ")[0]:
                # A signature stands before the summary.
                first, _, rest = rest.partition("\n\n")
            title, body = " ".join(first.split()), " ".join(rest.split())
            if 5 <= len(title.split()) <= 40 and len(body.split()) > 50 and title not in titles:
                titles.add(title)
                found[f"{name}.{member}"] = Document(body, title)
    return found


def code(_: Path) -> Iterator[Pair]:
    for document in docstrings().values():
        yield Pair(str(document.title), document.text, "en", "docstrings")


DOMAINS = {"faq": faq, "manuals": manuals, "reference": reference, "code": code}


def said(text: str) -> int:
    """How much a text says, in characters of a script with spaces."""
    return len(text) + 2 * len(_UNSPACED.findall(text))


def useful(pair: Pair) -> bool:
    """A query of some words that its text does not repeat, and a text that says something."""
    words = pair.query.split()
    return (
        12 <= said(pair.query) <= 300
        and (len(words) >= 2 or _UNSPACED.search(pair.query) is not None)
        and said(pair.text) >= _LEAST
        and pair.query.lower() not in pair.text.lower()
    )


def terms(text: str) -> list[str]:
    found = []
    for word in re.findall(r"\w+", text.lower()):
        unspaced = _UNSPACED.search(word)
        found += [word[i : i + 2] for i in range(max(1, len(word) - 1))] if unspaced else [word]
    return found


def draw(pairs: Mapping[tuple[str, str], list[Pair]], count: int) -> list[tuple[Pair, list[Pair]]]:
    """So many pairs, languages in turn and origins in turn, with all of the same kind."""
    generator = random.Random(0)
    by_language: dict[str, list[list[Pair]]] = {}
    for (language, _), own in sorted(pairs.items()):
        if len(own) >= 15:
            by_language.setdefault(language, []).append(generator.sample(own, len(own)))
    drawn: list[tuple[Pair, list[Pair]]] = []
    for turn in range(count):
        for kinds in by_language.values():
            own = kinds[turn % len(kinds)]
            place = turn // len(kinds)
            if len(drawn) < count and place < len(own):
                drawn.append((own[place], own))
    return drawn


def candidates(pair: Pair, others: list[Pair], depth: int) -> list[Pair]:
    """The right text and the best that BM25 finds beside it, as a first stage would order them."""
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index([terms(other.text) for other in others], show_progress=False)
    scores = index.get_scores(terms(pair.query))
    order = sorted(range(len(others)), key=lambda place: -scores[place])
    right = set(terms(pair.text))
    found = list[Pair]()
    for place in order:
        other = others[place]
        own = set(terms(other.text))
        near = len(own & right) > 0.8 * max(1, len(own | right))
        # Near copies of the right text would be relevant too.
        if other is pair or (not near and len([x for x in found if x is not pair]) < depth - 1):
            found.append(other)
    return found


def write(name: str, folder: Path, count: int, depth: int, root: Path) -> None:
    """One domain as a BEIR folder."""
    kinds: dict[tuple[str, str], list[Pair]] = {}
    seen: set[str] = set()
    for pair in DOMAINS[name](root):
        if useful(pair) and pair.query not in seen:
            seen.add(pair.query)
            kinds.setdefault((pair.language, pair.origin), []).append(pair)
    chosen = draw(kinds, count)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    ids: dict[int, str] = {}
    texts, questions, judged, run = [], [], [], []
    for number, (pair, others) in enumerate(chosen):
        query = f"{name}-{pair.language}-{number}"
        questions.append({"_id": query, "text": pair.query})
        for rank, found in enumerate(candidates(pair, others, depth), start=1):
            if id(found) not in ids:
                ids[id(found)] = f"{name}-{len(ids)}"
                texts.append({"_id": ids[id(found)], "title": "", "text": found.text})
            own = ids[id(found)]
            run.append([query, own, str(rank), str(-rank)])
            if found is pair:
                judged.append([query, own, "1"])
    for file, rows in (("corpus.jsonl", texts), ("queries.jsonl", questions)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (target / file).write_text(lines, encoding="utf-8")
    for file, header, table in (
        ("qrels.tsv", ["query-id", "corpus-id", "score"], judged),
        ("run.bm25.tsv", ["query-id", "corpus-id", "rank", "score"], run),
    ):
        with (target / file).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out, delimiter="\t").writerows([header, *table])
    print(f"{name}: {len(chosen)} queries, {len(texts)} texts", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=80, help="of each domain")
    parser.add_argument("--depth", type=int, default=10, help="candidates of each query")
    arguments = parser.parse_args()
    # Pages that call themselves XML are read as what they are.
    warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
    root = unpack(arguments.out)
    for name in DOMAINS:
        write(name, arguments.out, arguments.queries, arguments.depth, root)


if __name__ == "__main__":
    main()
