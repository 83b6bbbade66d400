"""The command line: what it writes, where, and with which exit code."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import cli, document_files
from icr_rag.cli import app, console
from icr_rag.cli import documents as cli_documents
from icr_rag.errors import DataError
from icr_rag.reranker import Reranker

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(model_folder):
    return model_folder


@pytest.fixture
def stdin(monkeypatch):
    def feed(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))

    return feed


@pytest.fixture
def rerank(folder, capsys):
    """Runs ``icr-rag rerank`` on the tiny model; (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["rerank", *arguments, "--model", folder, "--dtype", "float32"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# --- the entry point ------------------------------------------------------------------------


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("icr-rag 0.")


def test_no_arguments_show_the_help(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for command in ("demo", "rerank", "evaluate", "doctor"):
        assert command in out


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra_is_one_line(missing, monkeypatch, capsys):
    real = importlib.import_module

    def without(name, *rest):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert cli.main(["--version"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"needs {missing}: pip install 'icr-rag[cli]'" in captured.err


def test_entry_point_imports_neither_typer_nor_torch():
    code = "import sys, icr_rag.cli; print({'typer', 'rich', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_help_does_not_import_torch():
    code = "import sys; from icr_rag.cli import main; main(['rerank', '--help']); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "nonsense"),
        (["rerank"], 2, "query"),
        (["rerank", "q", "--layers", "middle"], 2, "middle"),
        (["rerank", "q", "--format", "xml"], 2, "xml"),
        (["rerank", "q", "--nonsense"], 2, "--nonsense"),
        (["rerank", "q", "/absent.txt"], 1, "/absent.txt"),
        (["rerank", "q", "--calibration", "maybe"], 1, "maybe"),
        (["doctor", "--device", "cuda:99"], 1, "cuda:99"),
        (["doctor", "--config", "/absent.yaml"], 1, "/absent.yaml"),
    ],
)
def test_errors_are_one_line(arguments, code, said, capsys):
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_the_traceback_wherever_it_stands(place, capsys):
    arguments = ["rerank", "q", "/absent.txt"]
    arguments.insert(place, "--debug")
    assert cli.main(arguments) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: /absent.txt")


def test_debug_after_two_dashes_is_an_argument():
    assert app._without_debug(["a", "--debug", "--", "--debug"]) == (["a", "--", "--debug"], True)


def test_markup_in_an_error_is_shown_as_it_is(capsys):
    cli.main(["rerank", "q", "/absent[bold]x[/bold].txt"])
    assert "/absent[bold]x[/bold].txt" in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(document_files, "read_text", stop)
    assert cli.main(["rerank", "q", "x.txt"]) == 130
    assert "Traceback" not in capsys.readouterr().err


# --- reading documents ----------------------------------------------------------------------


def test_text_files_are_one_document_each(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    (tmp_path / "b.md").write_text("three")
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.md")]
    documents = cli_documents.read_documents(paths)
    assert [document.text for document in documents] == ["one\ntwo\n", "three"]
    assert [document.id for document in documents] == paths


def test_jsonl():
    rows = '{"text": "a", "title": "T", "id": "x"}\r\n\n{"text": "b", "_id": 7}\n{"text": "c"}'
    a, b, c = document_files.parse_jsonl(rows, "here")
    assert (a.text, a.title, a.id) == ("a", "T", "x")
    assert (b.text, b.title, b.id) == ("b", None, "7")
    assert c.id is None


@pytest.mark.parametrize(
    "line",
    ['{"text": "cut', "[1]", "3", '{"body": "x"}', '{"text": 3}', '{"text": null}',
     '{"text": "x", "title": 1}', '{"text": "x", "id": true}', '{"text": "x", "id": [1]}',
     "[" * 100_000],
)  # fmt: skip
def test_malformed_line_is_named(line):
    with pytest.raises(DataError, match=r"^here\.jsonl:3: "):
        document_files.parse_jsonl('{"text": "fine"}\n\n' + line, "here.jsonl")


def test_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("gut\nschön".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt:2: not UTF-8"):
        cli_documents.read_documents([str(path)])


def test_directory_is_an_error(tmp_path):
    with pytest.raises(DataError, match="directory"):
        cli_documents.read_documents([str(tmp_path)])


def test_stdin_lines(stdin):
    stdin("eins\n\nzwei \u2028 drei\n".encode())
    assert [d.text for d in cli_documents.read_documents([])] == ["eins", "zwei \u2028 drei"]


def test_stdin_jsonl(stdin):
    stdin(b'\n{"text": "a"}\n{"text": "b", "id": 2}\n')
    assert [(d.text, d.id) for d in cli_documents.read_documents(["-"])] == [
        ("a", None),
        ("b", "2"),
    ]


def test_stdin_with_a_broken_object_is_not_taken_for_text(stdin):
    stdin(b'{"text": "a"\n')
    with pytest.raises(DataError, match="standard input:1"):
        cli_documents.read_documents([])


def test_stdin_with_braces_is_text(stdin):
    stdin(b"{curly} words\n")
    assert [d.text for d in cli_documents.read_documents([])] == ["{curly} words"]


@given(st.text())
def test_one_line_is_one_line_and_printable(text):
    line = console.one_line(text)
    assert len(line.splitlines()) <= 1
    assert all(character.isprintable() for character in line)


# --- rerank ---------------------------------------------------------------------------------

_ROWS = [
    {"text": "tin melts at 232 degrees", "title": "Tin", "id": "t"},
    {"text": "lead\tmelts\nat \x1b[31m327", "id": "l"},
    {"text": "gold melts at 1064 [bold]degrees[/bold]"},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in _ROWS))
    return str(path)


def _expected(folder, **fields):
    with Reranker(model=folder, dtype="float32", **fields) as reranker:
        return reranker.rank("what melts first?", _ROWS)


def test_json(rerank, rows, folder):
    code, out, err = rerank("what melts first?", rows, "--format", "json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    expected = _expected(folder)
    assert [hit["index"] for hit in result["hits"]] == [hit.index for hit in expected]
    assert [hit["score"] for hit in result["hits"]] == [hit.score for hit in expected]
    for hit in result["hits"]:
        row = _ROWS[hit["index"]]
        assert (hit["text"], hit["title"], hit["id"]) == (
            row["text"],
            row.get("title"),
            row.get("id"),
        )
        assert hit["score_group"] == 0
    assert [hit["rank"] for hit in result["hits"]] == [1, 2, 3]
    assert result["usage"]["tokens"] == expected.usage.tokens
    assert result["usage"]["layers"] == list(expected.usage.layers)
    assert result["comparable"] is True


def test_options_reach_the_engine(rerank, rows, folder):
    _, out, _ = rerank(
        "what melts first?", rows, "-f", "json", "--layers", "0-1", "--no-token-mask",
        "--aggregation", "mean", "--top-n", "2",
    )  # fmt: skip
    result = json.loads(out)
    expected = _expected(folder, layers=(0, 1), token_mask=False, aggregation="mean", top_n=2)
    assert [hit["score"] for hit in result["hits"]] == [hit.score for hit in expected]
    assert result["usage"]["layers"] == [0, 1]
    assert len(result["hits"]) == 2


def test_trec(rerank, rows, folder):
    code, out, _ = rerank("what melts first?", rows, "--format", "trec", "--query-id", "q7")
    assert code == 0
    names = ["t", "l", "2"]
    expected = [
        f"q7 Q0 {names[hit.index]} {rank} {4 - rank} icr_rag"
        for rank, hit in enumerate(_expected(folder), start=1)
    ]
    assert out.splitlines() == expected


@pytest.mark.parametrize(
    ("ids", "said"), [(["a b"], "a b"), (["x", "x"], "'x'"), ([""], "''"), (["1", None], "'1'")]
)
def test_trec_ids_that_cannot_be_written(ids, said, rerank, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "x", "id": name}) for name in ids))
    code, out, err = rerank("query", str(path), "-f", "trec")
    assert (code, out) == (1, "")
    assert said in err


def test_text_in_a_pipe_is_four_columns(rerank, rows, folder):
    code, out, err = rerank("what melts first?", rows)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [len(line) for line in lines] == [4, 4, 4]
    expected = _expected(folder)
    assert [line[1] for line in lines] == [f"{hit.score:.6f}" for hit in expected]
    texts = {line[2]: line[3] for line in lines}
    assert texts["t"] == "Tin tin melts at 232 degrees"
    assert texts["l"] == "lead melts at \N{REPLACEMENT CHARACTER}[31m327"
    assert texts[""] == "gold melts at 1064 [bold]degrees[/bold]"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_table_on_a_terminal(width, rerank, tmp_path, folder, monkeypatch):
    rows = [
        {"text": "[bold]gold[/bold] " + "melts late " * 30, "id": "gold"},
        {"text": "\x1b[31mlead\nmelts " + "sooner " * 30, "id": "a-very-long-identifier-indeed"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = rerank("what melts first?", str(path))
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    lines = plain.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    with Reranker(model=folder, dtype="float32") as reranker:
        expected = reranker.rank("what melts first?", rows)
    # Rank and score stay whole whatever the length of the documents.
    for rank, (line, hit) in enumerate(zip(lines[1:], expected, strict=True), start=1):
        assert line.split()[:2] == [str(rank), f"{hit.score:.4f}"]
    assert "\x1b[31mlead" not in out
    if width > 40:
        assert "[bold]gold[/bold]" in plain


def test_query_from_a_file(rerank, rows, tmp_path):
    path = tmp_path / "query.txt"
    path.write_text("what melts first?\n")
    assert rerank("--query-file", str(path), rows) == rerank("what melts first?", rows)


def test_no_documents(rerank, stdin):
    stdin(b"")
    code, out, err = rerank("query", "--format", "json")
    assert code == 0
    assert json.loads(out)["hits"] == []
    assert "no documents" in err


def test_blank_query_is_an_error(rerank, rows):
    code, out, err = rerank("  ", rows)
    assert (code, out) == (1, "")
    assert "blank" in err


def test_cut_documents_and_windows_are_told(rerank, rows):
    _, _, err = rerank("what?", rows, "--max-document-tokens", "26", "--window", "2")
    assert "2 of 3 documents were cut to fit: t, number 3" in err
    assert "windows" in err


def test_json_where_the_encoding_lacks_a_character(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", write_through=True))
    console.write_json({"text": "größer \U0001f600 \ud800"})
    assert json.loads(raw.getvalue()) == {"text": "größer \U0001f600 \ud800"}
