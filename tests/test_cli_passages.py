"""The command line over long documents."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sentencex")
pytest.importorskip("typer")

from icr_rag import Reranker, cli

QUERY = "Which metal melts first?"
LONG = (
    "Oaks carry acorns in autumn. Tin melts at 232 degrees, and that is early. Why? Nobody knows."
)
FLAGS = ["--scoring", "likelihood", "--passages", "max", "--passage-tokens", "60"]


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "documents.jsonl"
    rows = [{"id": "long", "title": "Metals", "text": LONG}, {"id": "short", "text": "Tin."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [str(path)]


def run(capsys, model, *arguments):
    assert cli.main(["rerank", QUERY, *arguments, "--model", model, *FLAGS]) == 0
    return capsys.readouterr().out


def test_the_passage_is_shown(capsys, model_folder, files):
    with Reranker(
        model=model_folder, scoring="likelihood", passages="max", passage_tokens=60
    ) as reranker:
        ranking = reranker.rank(QUERY, [{"title": "Metals", "text": LONG}, {"text": "Tin."}])
    wanted = {hit.index: hit.passage for hit in ranking}
    found = json.loads(run(capsys, model_folder, *files, "--format", "json"))
    assert {hit["index"]: hit["passage"] for hit in found["hits"]} == {0: list(wanted[0]), 1: None}
    assert {hit["index"]: hit["text"] for hit in found["hits"]} == {0: LONG, 1: "Tin."}
    assert found["usage"]["passages"] == ranking.usage.passages == 4
    lines = run(capsys, model_folder, *files).splitlines()
    shown = {name: text for _, _, name, text in (line.split("\t") for line in lines)}
    start, end = wanted[0]
    assert shown == {"long": f"Metals {LONG[start:end]}", "short": "Tin."}


def test_whole_documents_are_shown_without(capsys, model_folder, files):
    assert cli.main(["rerank", QUERY, *files, "--model", model_folder, "--scoring", "likelihood",
                     "--format", "json"]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert [hit["passage"] for hit in found["hits"]] == [None, None]
    assert found["usage"]["passages"] == 0


def test_passages_are_encoded(capsys, model_folder, files, tmp_path):
    states = ["--states-dir", str(tmp_path / "states")]
    assert cli.main(["encode", *files, "--model", model_folder, *FLAGS, *states]) == 0
    capsys.readouterr()
    kept = [*files, "--format", "json", "--document-states", "independent", *states]
    found = json.loads(run(capsys, model_folder, *kept))
    # The query for each passage, and none of their tokens.
    assert found["usage"]["tokens"] == 4 * len(f" {QUERY}")


def test_a_setting_without_meaning_is_an_error(capsys, model_folder, files):
    arguments = ["rerank", QUERY, *files, "--model", model_folder, "--passage-tokens", "60"]
    assert cli.main(arguments) != 0
    assert "means nothing without passages" in capsys.readouterr().err
