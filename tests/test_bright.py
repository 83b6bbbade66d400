"""BRIGHT in its published format, from a folder and from the hub's cache."""

import json
import sys

import pytest

from icr_rag import Document
from icr_rag.errors import DataError, MissingDependencyError
from icr_rag.evaluation.bright import (
    DOMAINS,
    Part,
    open_bright_folder,
    open_bright_hub,
    parse_part,
)

LONG_QUERY = "why " * 3000
DOCUMENTS = [{"id": f"d{number}.txt", "content": f"text {number}"} for number in range(6)]
PAGES = [{"id": "page", "content": "all of it"}]
EXAMPLES = [
    {
        "id": "0",
        "query": LONG_QUERY,
        "reasoning": "because",
        "excluded_ids": ["N/A"],
        "gold_ids_long": ["page"],
        "gold_ids": ["d1.txt", "d2.txt"],
        "gold_answer": "N/A",
    },
    {
        "id": "1",
        "query": "b",
        "reasoning": "because",
        "excluded_ids": ["d4.txt", "d5.txt"],
        "gold_ids_long": ["N/A"],
        "gold_ids": ["d3.txt"],
        "gold_answer": "N/A",
    },
]
REASON = [{**row, "query": f"thoughts {row['id']}"} for row in EXAMPLES]
CONFIGS = {
    "documents": DOCUMENTS,
    "long_documents": PAGES,
    "examples": EXAMPLES,
    "gpt4_reason": REASON,
}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_bright(folder, ending="-00000-of-00001.parquet", domain="biology", configs=CONFIGS):
    for config, rows in configs.items():
        write_rows(folder / config / f"{domain}{ending}", rows)
    return folder


@pytest.fixture(params=["-00000-of-00001.parquet", ".parquet", ".jsonl"])
def copy(request, tmp_path):
    return write_bright(tmp_path, request.param)


def test_a_domain_from_a_folder(copy):
    opened = open_bright_folder(copy, Part("biology"))
    assert opened.name == "biology"
    assert opened.queries == {"0": LONG_QUERY, "1": "b"}
    assert opened.judgements == {"0": {"d1.txt": 1, "d2.txt": 1}, "1": {"d3.txt": 1}}
    assert opened.excluded == {"0": frozenset(), "1": frozenset({"d4.txt", "d5.txt"})}
    assert opened.candidates is None
    assert len(opened.read_documents(None)) == 6
    assert opened.read_documents({"d2.txt"}) == {"d2.txt": Document("text 2", id="d2.txt")}


def test_whole_pages(copy):
    opened = open_bright_folder(copy, Part("biology", long=True))
    assert opened.judgements == {"0": {"page": 1}, "1": {}}
    assert opened.read_documents(None) == {"page": Document("all of it", id="page")}


def test_rewritten_queries(copy):
    opened = open_bright_folder(copy, Part("biology", queries="gpt4_reason"))
    assert opened.queries == {"0": "thoughts 0", "1": "thoughts 1"}


def test_a_file_in_pieces(tmp_path):
    write_bright(tmp_path)
    whole = tmp_path / "documents" / "biology-00000-of-00001.parquet"
    whole.unlink()
    write_rows(whole.with_name("biology-00000-of-00002.parquet"), DOCUMENTS[:4])
    with pytest.raises(DataError, match="holds 1 of the 2 files of biology"):
        open_bright_folder(tmp_path, Part("biology")).read_documents(None)
    write_rows(whole.with_name("biology-00001-of-00002.parquet"), DOCUMENTS[4:])
    found = open_bright_folder(tmp_path, Part("biology")).read_documents(None)
    assert list(found) == [row["id"] for row in DOCUMENTS]


def test_a_domain_is_not_mistaken_for_one_whose_name_begins_alike(tmp_path):
    write_bright(tmp_path, ".jsonl", "biology_more")
    with pytest.raises(DataError, match=r"holds neither biology-.*nor biology\.jsonl"):
        open_bright_folder(tmp_path, Part("biology"))


def test_the_same_file_in_two_formats(tmp_path):
    write_bright(tmp_path)
    write_bright(tmp_path, ".jsonl")
    with pytest.raises(DataError, match="holds biology several times"):
        open_bright_folder(tmp_path, Part("biology"))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("rest", ["", "/long", "/gpt4_reason", "/long/Gemini-1.0_reason"])
def test_names_of_parts(domain, rest):
    part = parse_part(domain + rest)
    assert part.domain == domain
    assert part.long == ("long" in rest)
    assert part.queries == (rest.split("/")[-1] if "reason" in rest else "examples")
    assert part.name == domain + rest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Biology",
        "chemistry",
        "biology/",
        "biology/short",
        "biology/gpt4_reason/long",
        "biology/long/long",
        "biology/../x_reason",
        "biology/long/a_reason/b_reason",
    ],
)
def test_what_is_no_part(text):
    with pytest.raises(DataError, match=r"is no (domain|part) of BRIGHT"):
        parse_part(text)


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        ("examples", "id", None, r"biology\.jsonl:1: the id is None"),
        ("examples", "query", None, ":1: 'query' is None; it must be a string"),
        ("examples", "query", " ", ":1: the text of query 0 is blank"),
        ("examples", "gold_ids", "d1", ":1: 'gold_ids' is 'd1'; it must be a list of strings"),
        ("examples", "excluded_ids", None, ":1: 'excluded_ids' is None"),
        ("examples", "excluded_ids", ["d2.txt"], "'d2.txt' is both in gold_ids and in excluded_"),
        ("documents", "content", 3, ":1: 'content' is 3; it must be a string"),
        ("documents", "id", True, ":1: the id is True"),
        ("documents", "id", "d1.txt", ":2: 'd1.txt' stands there twice"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, config, field, value, message):
    first, *others = CONFIGS[config]
    write_bright(
        tmp_path, ".jsonl", configs={**CONFIGS, config: [{**first, field: value}, *others]}
    )
    with pytest.raises(DataError, match=message):
        open_bright_folder(tmp_path, Part("biology")).read_documents(None)


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[]", "expected an object")])
def test_a_malformed_line_is_named(tmp_path, line, message):
    write_bright(tmp_path, ".jsonl")
    (tmp_path / "examples" / "biology.jsonl").write_text(line)
    with pytest.raises(DataError, match=f":1: {message}"):
        open_bright_folder(tmp_path, Part("biology"))


def test_a_parquet_file_that_is_none(tmp_path):
    pytest.importorskip("pyarrow")
    write_bright(tmp_path)
    (tmp_path / "examples" / "biology-00000-of-00001.parquet").write_text("version https://git-lfs")
    with pytest.raises(DataError, match=r"cannot read .*biology-00000-of-00001\.parquet"):
        open_bright_folder(tmp_path, Part("biology"))


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    write_bright(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[evaluation\]'"):
        open_bright_folder(tmp_path, Part("biology"))


def test_the_hub_s_cache_is_enough(tmp_path, monkeypatch):
    repository = tmp_path / "datasets--xlangai--BRIGHT"
    write_bright(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened = open_bright_hub(Part("biology"))
    assert list(opened.queries) == ["0", "1"]
    assert len(opened.read_documents(None)) == 6


def test_only_what_is_wanted_is_asked_of_the_hub(tmp_path, monkeypatch):
    asked = []

    def download(repository, **options):
        asked.append((repository, options))
        return write_bright(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    open_bright_hub(Part("biology", long=True, queries="gpt4_reason"))
    wanted = ["long_documents/biology-*.parquet", "gpt4_reason/biology-*.parquet"]
    assert asked == [("xlangai/BRIGHT", {"repo_type": "dataset", "allow_patterns": wanted})]


def test_no_hub_and_nothing_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"bright:pony could not be had from the hub .*local copy"):
        open_bright_hub(Part("pony"))
