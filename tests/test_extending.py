"""The recipes of docs/extending.md, followed to the letter."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from beir import write_beir
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def block(section, language="python"):
    """The code of a section."""
    part = PAGE.split(f"## {section}\n", 1)[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", part, flags=re.DOTALL)[1]


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory):
    """A folder with another package's module and its entry point, as pip would install them."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "short_first.py").write_text(block("Add a way of scoring"), encoding="utf-8")
    told = folder / "short_first-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: short-first\nVersion: 1.0\n")
    lines = block("Add a way of scoring", "toml").splitlines()
    group = re.fullmatch(r'\[project\.entry-points\."(.+)"\]', lines[0])[1]
    name, value = re.fullmatch(r'(\w+) = "(.+)"', lines[1]).groups()
    (told / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    return folder


def run(plug_in, code, *arguments):
    """What a fresh process prints in which the other package is installed."""
    program = f"import sys; sys.path[:0] = [{str(plug_in)!r}, {str(ROOT / 'tests')!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**__import__("os").environ, "HF_HUB_OFFLINE": "1", "TERMINAL_WIDTH": "300"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TEXTS = ["a long text about metals", "short", "middling text"]


def test_a_new_scorer_ranks(plug_in, model_folder):
    out = run(
        plug_in,
        """
        from icr_rag import Reranker, RerankerConfig
        from icr_rag.errors import ConfigError

        ranker = Reranker(model=sys.argv[1], scoring="shortness", dtype="float32")
        print([hit.index for hit in ranker.rank("q?", sys.argv[2:])])
        print("shortness" in RerankerConfig.json_schema()["properties"]["scoring"]["enum"])
        for useless in ({"layers": (1, 2)}, {"window": 5}, {"prefill_chunk": 9}):
            try:
                RerankerConfig(scoring="shortness", **useless)
            except ConfigError as error:
                print("shortness" in str(error))
        """,
        model_folder,
        *TEXTS,
    )
    assert out.split("\n") == ["[1, 2, 0]", "True", "True", "True", "True", ""]


def test_a_new_scorer_works_on_the_command_line(plug_in, model_folder, tmp_path):
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join(TEXTS), encoding="utf-8")
    code = "from icr_rag.cli import main; sys.exit(main(sys.argv[1:]))"
    shown = run(plug_in, code, "rerank", "--help")
    assert "attention, likelihood, generation, mixed, shortness" in " ".join(shown.split())
    arguments = [
        "--model",
        model_folder,
        "--scoring",
        "shortness",
        "--dtype",
        "float32",
        "--format",
        "json",
    ]
    out = run(
        plug_in,
        # A file of lines is one document; standard input is one a line.
        f"sys.stdin = open({str(documents)!r}); {code}",
        "rerank",
        "q?",
        *arguments,
    )
    found = re.findall(r'"text": "([^"]+)"', out)
    assert found == [TEXTS[1], TEXTS[2], TEXTS[0]]


def test_a_new_scorer_works_in_both_adapters(plug_in, model_folder):
    pytest.importorskip("llama_index.core")
    pytest.importorskip("langchain_core")
    out = run(
        plug_in,
        """
        from langchain_core.documents import Document
        from llama_index.core.schema import NodeWithScore, TextNode

        from icr_rag.integrations import langchain, llama_index

        fields = {"model": sys.argv[1], "scoring": "shortness", "dtype": "float32"}
        texts = sys.argv[2:]
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        found = llama_index.ICRRerank(**fields).postprocess_nodes(nodes, query_str="q?")
        print([texts.index(node.node.text) for node in found])
        documents = [Document(page_content=text) for text in texts]
        found = langchain.ICRRerank(**fields).compress_documents(documents, "q?")
        print([texts.index(document.page_content) for document in found])
        """,
        model_folder,
        *TEXTS,
    )
    assert out.split("\n")[-3:] == ["[1, 2, 0]", "[1, 2, 0]", ""]


def test_a_new_scorer_is_evaluated_drawn_and_listed(plug_in, model_folder, tmp_path):
    pytest.importorskip("matplotlib")
    write_beir(tmp_path / "data" / "tiny")
    (tmp_path / "grid.yaml").write_text(
        f"data: [tiny]\ndepths: [3]\nreranker: {{model: {model_folder}, dtype: float32}}\n"
        "systems:\n  short: {scoring: shortness}\n  icr: {layers: all}\nbaseline: icr\n",
        encoding="utf-8",
    )
    report = tmp_path / "report"
    code = "from icr_rag.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["--data", tmp_path / "data", "--out", report]
    run(plug_in, code, "evaluate", tmp_path / "grid.yaml", *arguments)
    drawn = (report / "frontier.svg").read_text(encoding="utf-8")
    assert "#8a6d00" in drawn
    assert "short" in (report / "report.md").read_text(encoding="utf-8")
    listed = run(
        plug_in,
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "import generate_method_docs; print(generate_method_docs.table())",
    )
    row = "| `shortness` | `pointwise` | minus the number of tokens | none | none |"
    assert row in listed


BROKEN = {
    "raises": ("1 / 0", "cannot be had: division by zero"),
    "is no method": ("METHOD = 3", "3 is no icr_rag.methods.Method"),
    "has an unknown framework": (
        "from icr_rag.methods import Method\nMETHOD = Method('a', 'knockout', 'a:B', '', '')",
        "framework='knockout'; allowed are",
    ),
    "is there already": (
        "from icr_rag.methods import BUILT_IN\nMETHOD = [BUILT_IN[0]]",
        "there is one for attention (listwise) already",
    ),
    "has an unknown setting": (
        "from icr_rag.methods import Method\n"
        "METHOD = Method('a', 'pointwise', 'a:B', '', '', settings=frozenset({'vibes'}))",
        "settings ['vibes'] are none",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plug_in_is_told_and_takes_nothing_down(plug_in, name, tmp_path):
    code, said = BROKEN[name]
    (tmp_path / "broken_method.py").write_text(code, encoding="utf-8")
    told = tmp_path / "broken_method-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-method\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[icr_rag.methods]\nbroken = broken_method:METHOD\n")
    out = run(
        plug_in,
        f"""
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        sys.path.insert(0, {str(tmp_path)!r})
        from icr_rag import RerankerConfig
        RerankerConfig(scoring="shortness")
        """,
    )
    assert said in out


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ("nowhere_to_be_found:A", "cannot be had"),
        ("icr_rag.scoring.base:Nothing", "cannot be had"),
        ("icr_rag.scoring.base:Cost", "no subclass of"),
        ("icr_rag.scoring.base:Scorer", "cannot do what framework='pointwise' asks"),
    ],
)
def test_a_row_that_names_no_scorer_says_so(monkeypatch, scorer, said):
    """And never becomes another method."""
    from dataclasses import replace

    from icr_rag import methods
    from icr_rag.errors import ConfigError

    row = replace(methods.BUILT_IN[4], scoring="mine", variant="", scorer=scorer)
    monkeypatch.setattr(methods, "methods", lambda: (*methods.BUILT_IN, row))
    ranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), scoring="mine", framework="pointwise"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        ranker.rank("q?", ["a", "b"])


@given(st.lists(st.integers(0, 5), max_size=9))
def test_a_new_framework_gives_a_permutation(keys):
    names: dict = {}
    exec(block("Add a framework"), names)
    rank = names["rank_knockout"]
    found = rank(len(keys), lambda pairs: [keys[a] - keys[b] for a, b in pairs])
    assert sorted(found.order) == list(range(len(keys)))
    if keys:
        assert keys[found.order[0]] == max(keys)


def test_a_model_ranks_or_is_refused(capsys):
    exec(block("Support a model"), {"tokenizer": byte_tokenizer()})
    assert capsys.readouterr().out == "ranks: 2\n"


def test_a_new_adapter_ranks_and_changes_nothing():
    names: dict = {"__name__": __name__}
    exec(block("Add an adapter"), names)
    chunks = [names["Chunk"](text) for text in TEXTS]
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    found = names["ChunkRanker"](reranker)("q?", chunks)
    assert [chunk.score for chunk in chunks] == [None] * 3
    wanted = [(TEXTS[hit.index], hit.score) for hit in reranker.rank("q?", TEXTS)]
    assert [(chunk.text, chunk.score) for chunk in found] == wanted
    assert names["ChunkRanker"].from_llm(tiny_model("llama"), tokenizer=byte_tokenizer())


@pytest.mark.parametrize("page", ["AGENTS.md", "CONTRIBUTING.md", "docs/extending.md"])
def test_what_the_pages_name_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:icr_rag|tests|scripts|docs|model|calls|frameworks)/[\w./*]+)`", text)
    named += re.findall(r"(?:tests|scripts)/\w+\.py", text)
    assert named
    for name in named:
        if "NAME" in name or name.endswith("knockout.py"):
            continue
        assert any(list(base.glob(name)) for base in (ROOT, ROOT / "icr_rag")), name
