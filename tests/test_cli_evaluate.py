"""``icr-rag evaluate``, and the flags that every command shares."""

from __future__ import annotations

import json
import re
from typing import Annotated

import pytest
import typer
from beir import RUN, FakeReranker, write_beir
from tiny import byte_tokenizer, tiny_model
from typer.testing import CliRunner

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli import evaluate as command
from icr_rag.cli.options import (
    config_from_options,
    parse_heads,
    parse_layers,
    with_reranker_options,
)
from icr_rag.errors import ConfigError, DataError
from icr_rag.evaluation.metrics import MEASURES
from icr_rag.evaluation.runs import read_run, write_trec_run

app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
app.command()(command.evaluate)


class Fake(FakeReranker):
    """A reranker that reverses, made from a configuration as the command makes it."""

    made: list[Fake] = []
    fail_next_at: int | None = None

    def __init__(self, config):
        super().__init__(config, reverse=True)
        self.fail_at = Fake.fail_next_at
        self.warm = False
        Fake.made.append(self)

    def warm_up(self):
        self.warm = True

    def __enter__(self):
        return self

    def __exit__(self, *details):
        return None


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "Reranker", Fake)
    monkeypatch.setattr(command, "prepare", lambda reranker: None)
    monkeypatch.setattr(Fake, "made", [])
    monkeypatch.setattr(Fake, "fail_next_at", None)
    monkeypatch.setenv("ICR_RAG_CACHE", str(tmp_path / "cache"))
    return Fake


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "tiny")


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- the command ----------------------------------------------------------------------------


def test_prints_a_table_on_standard_output(fake, folder):
    result = run(folder)
    assert result.exit_code == 0
    assert "tiny: 5 queries, top 100" in result.stdout
    rows = [
        re.findall(r"[^\s│]+", line) for line in result.stdout.splitlines() if line.startswith("│")
    ]
    assert [row[0] for row in rows] == list(MEASURES)
    # Reversed, nothing relevant is on top; q2's acorns were, of five queries.
    assert rows[MEASURES.index("P@1")][1:] == ["0.2000", "0.0000", "-0.2000"]
    assert "5/5 queries" in result.stderr
    assert "note: 4 documents were cut to fit" in " ".join(result.stderr.split())
    assert fake.made[0].warm


def test_json_on_standard_output_is_nothing_else(fake, folder):
    result = run(folder, "--json", "-", "--shuffle", 0)
    values = json.loads(result.stdout)
    assert tuple(values)[: len(MEASURES)] == MEASURES
    assert values["candidates"].keys() == values["per_query"]["q1"].keys() == set(MEASURES)
    assert values["shuffle"] == 0
    assert values["queries"] == 5


def test_json_and_run_files(fake, folder, tmp_path):
    out, trec = tmp_path / "out.json", tmp_path / "out.run"
    result = run(folder, "--json", out, "--run-out", trec, "--depth", 2)
    assert "nDCG@10" in result.stdout
    assert json.loads(out.read_text())["depth"] == 2
    assert read_run(trec)["q4"] == ["lead", "zinc", "tin", "oak"]
    assert len((tmp_path / "out.json.state.jsonl").read_text().splitlines()) == 5


def test_the_flags_reach_the_reranker(fake, folder, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("layers: [1, 2]\norder: given\nmax_document_tokens: 7\n")
    values = json.loads(
        run(
            folder, "--config", file, "-m", "some/model", "--layers", "10-13",
            "--heads", "10-3,13-0", "--no-token-mask", "--null-query", "nothing",
            "--double-query", "--json", "-",
        ).stdout
    )  # fmt: skip
    expected = RerankerConfig(
        model="some/model",
        layers=(10, 13),
        heads=((10, 3), (13, 0)),
        token_mask=False,
        null_query="nothing",
        double_query=True,
        order="given",
        max_document_tokens=7,
    )
    assert fake.made[0].config == expected
    assert values["config"] == expected.to_dict()


def test_candidates_are_the_only_run_of_the_folder_or_named(fake, folder):
    other = folder / "run.other.txt"
    write_trec_run(other, {query: documents[::-1] for query, documents in RUN.items()}, "x")
    with pytest.raises(DataError, match=r"several runs: run\.other\.txt, run\.tsv; choose one"):
        run(folder)
    values = json.loads(run(folder, "--candidates", other, "--json", "-").stdout)
    assert values["P@1"] == 0.2
    for path in folder.glob("run.*"):
        path.unlink()
    found = json.loads(run(folder, "--json", "-").stdout)
    assert found["first_stage"].startswith("BM25")
    # Found in the whole corpus: better than the run, which has its best document first only once.
    assert found["candidates"]["P@1"] == 0.8
    with pytest.raises(DataError, match="nowhere' is no data set: there is no such folder"):
        run(folder / "nowhere")


def test_split_names_the_judgements(fake, folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "dev.tsv")
    assert json.loads(run(folder, "--split", "dev", "--json", "-").stdout)["queries"] == 5


@pytest.mark.parametrize("beside", [True, False])
def test_goes_on_where_it_was_interrupted(fake, folder, tmp_path, beside):
    arguments = [folder, *(["--json", tmp_path / "out.json"] if beside else [])]
    fake.fail_next_at = 1
    interrupted = run(*arguments)
    assert interrupted.exit_code != 0
    assert "give the same command again to go on" in " ".join(interrupted.stderr.split())
    assert not (tmp_path / "out.json").exists()
    fake.fail_next_at = None
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--limit", 2).exit_code == 0
    assert run(*arguments, "--fresh").exit_code == 0
    assert [len(reranker.calls) for reranker in fake.made] == [1, 3, 0, 4]
    # A model that ranks nothing is not loaded.
    assert [reranker.warm for reranker in fake.made] == [True, True, False, True]


def test_evaluations_in_the_cache_do_not_displace_one_another(fake, folder):
    for arguments in ([], ["--depth", 2], ["--shuffle", 1], ["--layers", "all"], []):
        run(folder, *arguments)
    assert [len(reranker.calls) for reranker in fake.made] == [4, 4, 4, 4, 0]


def test_what_cannot_work_is_told_before_the_model_is_loaded(fake, folder, tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        run(folder, "--json", tmp_path / "nowhere" / "out.json")
    with pytest.raises(DataError, match="there is no folder"):
        run(folder, "--run-out", tmp_path / "nowhere" / "out.run")
    (tmp_path / "run").write_text("other Q0 tin 1 1 x\n")
    with pytest.raises(DataError, match="no candidates for any query"):
        run(folder, "--candidates", tmp_path / "run")
    assert not any(reranker.warm for reranker in fake.made)


@pytest.mark.parametrize(
    "arguments", [["--layers", "x"], ["--heads", "1"], ["--depth", "0"], ["--limit", "0"], ["--no"]]
)
def test_wrong_usage_exits_with_2(fake, folder, arguments):
    assert run(folder, *arguments).exit_code == 2


def test_a_wrong_value_names_those_allowed(fake, folder):
    with pytest.raises(ConfigError, match=r"order='best': .*'best_last' or 'given'"):
        run(folder, "--order", "best")


def test_with_a_real_reranker(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ICR_RAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        command,
        "Reranker",
        lambda config: Reranker.from_model(tiny_model("llama"), byte_tokenizer(), config),
    )
    values = json.loads(run(folder, "--layers", "1,2", "--json", "-").stdout)
    assert values["layers"] == [1, 2]
    assert values["tokens"] > 0
    assert values["devices"] == ["cpu float32"]
    assert values["R@5"] == values["candidates"]["R@5"]


# --- the flags ------------------------------------------------------------------------------


def collect(*arguments, without=(), **defaults):
    """The configuration that a command with these flags gets."""
    got = []

    @with_reranker_options(without, **defaults)
    def command(
        config: RerankerConfig,
        name: Annotated[str, typer.Argument()] = "none",
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> None:
        """A command."""
        got.append((config, name, loud))

    small = typer.Typer(pretty_exceptions_enable=False)
    small.command()(command)
    result = CliRunner().invoke(small, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return got[0] if got else result


#: How a value other than the default is given for each field.
KEPT = ["--document-states", "independent"]
CASCADE = [*KEPT, "--cascade", "5"]
SETWISE = ["--framework", "setwise"]
LIKELIHOOD = ["--scoring", "likelihood"]
YES_NO = [*LIKELIHOOD, "--likelihood", "yes_no"]
RRF = ["--fusion", "rrf"]
FIELDS = ["--rank-fields", "name"]
PASSAGES = ["--passages", "max"]
ABSOLUTE = ["--score-mode", "explained"]
BESIDE = [
    (ABSOLUTE, {"score_mode": "explained"}),
    (SETWISE, {"framework": "setwise"}),
    (LIKELIHOOD, {"scoring": "likelihood"}),
    (YES_NO, {"likelihood": "yes_no"}),
    (RRF, {"fusion": "rrf"}),
    (FIELDS, {"rank_fields": ("name",)}),
    (PASSAGES, {"passages": "max"}),
]
FLAGS = {
    "model": (["--model", "some/model"], "some/model"),
    "revision": (["--revision", "main"], "main"),
    "device": (["--device", "cuda:1"], "cuda:1"),
    "device_map": (["--device-map", "auto"], "auto"),
    "dtype": (["--dtype", "bfloat16"], "bfloat16"),
    "attn_implementation": (["--attn-implementation", "eager"], "eager"),
    "quantization": (["--quantization", "4bit"], "4bit"),
    "local_files_only": (["--local-files-only"], True),
    "cache_dir": (["--cache-dir", "here"], "here"),
    "trust_remote_code": (["--trust-remote-code"], True),
    "layers": (["--layers", "10-13"], (10, 13)),
    "heads": (["--heads", "20-15,21-11"], ((20, 15), (21, 11))),
    "double_query": (["--double-query"], True),
    "calibration": (["--calibration", "none"], "none"),
    "null_query": (["--null-query", "nothing"], "nothing"),
    "token_mask": (["--no-token-mask"], False),
    "aggregation": (["--aggregation", "mean"], "mean"),
    "order": (["--order", "given"], "given"),
    "instruction": (["--instruction", "question_answering"], "question_answering"),
    "max_document_tokens": (["--max-document-tokens", "300"], 300),
    "max_query_tokens": (["--max-query-tokens", "20"], 20),
    "window": (["--window", "20"], 20),
    "stride": (["--stride", "10"], 10),
    "token_budget": (["--token-budget", "4096"], 4096),
    "prefill_chunk": (["--prefill-chunk", "512"], 512),
    "top_n": (["--top-n", "0"], 0),
    "score_mode": (["--score-mode", "share"], "share"),
    "score_threshold": (["--score-threshold", "0.5"], 0.5),
    "min_answerable": ([*ABSOLUTE, "--min-answerable", "0.4"], 0.4),
    "fusion": (["--fusion", "rrf"], "rrf"),
    "prefer": (["--prefer", "speed"], "speed"),
    "first_stage_weights": (
        ["--first-stage-weights", "dense=1,order=0.3"],
        (("dense", 1.0), ("order", 0.3)),
    ),
    "embedder": (["--embedder", "a/model"], "a/model"),
    "fusion_weight": ([*RRF, "--fusion-weight", "0.7"], 0.7),
    "near_duplicates": (["--near-duplicates", "0.8"], 0.8),
    "diversity": (["--diversity", "0.3"], 0.3),
    "deadline_ms": (["--deadline-ms", "250"], 250.0),
    "rank_fields": (["--rank-fields", "name,text"], ("name", "text")),
    "rank_fields_format": ([*FIELDS, "--rank-fields-format", "yaml"], "yaml"),
    "passages": (["--passages", "top2"], "top2"),
    "passage_tokens": ([*PASSAGES, "--passage-tokens", "64"], 64),
    "passage_overlap": ([*PASSAGES, "--passage-overlap", "32"], 32),
    "traces": (["--traces", "numbers"], "numbers"),
    "on_error": (["--on-error", "passthrough"], "passthrough"),
    "scoring": (["--scoring", "likelihood"], "likelihood"),
    "framework": (["--framework", "pointwise"], "pointwise"),
    "likelihood": ([*LIKELIHOOD, "--likelihood", "yes_no"], "yes_no"),
    "yes_no_template": ([*YES_NO, "--yes-no-template", "qwen3_reranker"], "qwen3_reranker"),
    "document_states": (["--document-states", "independent"], "independent"),
    "states_dir": ([*KEPT, "--states-dir", "kept"], "kept"),
    "states_dtype": ([*KEPT, "--states-dtype", "int8"], "int8"),
    "states_memory": ([*KEPT, "--states-memory", "7"], 7),
    "cascade": ([*KEPT, "--cascade", "5"], 5),
    "cascade_framework": ([*CASCADE, "--cascade-framework", "pointwise"], "pointwise"),
    "sort": ([*SETWISE, "--sort", "bubble"], "bubble"),
    "set_size": ([*SETWISE, "--set-size", "3"], 3),
    "sort_top": ([*SETWISE, "--sort-top", "5"], 5),
    "reading": (["--reading", "lift"], "lift"),
    "profile": (["--profile", "profile.json"], "profile.json"),
}


@pytest.mark.parametrize("field", sorted({*RerankerConfig.model_fields, *FLAGS}))
def test_every_field_has_a_flag(field):
    arguments, value = FLAGS[field]
    config, name, loud = collect(*arguments)
    # What some fields mean nothing without.
    others = {"document_states": "independent"} if arguments[: len(KEPT)] == KEPT else {}
    others |= {"cascade": 5} if arguments[: len(CASCADE)] == CASCADE else {}
    for flags, needed in BESIDE:
        others |= needed if arguments[: len(flags)] == flags else {}
    assert config == RerankerConfig(**{**others, field: value})
    others.pop(field, None)
    assert config != RerankerConfig(**others)
    assert (name, loud) == ("none", False)


def test_help_tells_what_the_fields_tell(monkeypatch):
    # Wide enough that rich wraps nothing.
    monkeypatch.setenv("TERMINAL_WIDTH", "500")
    monkeypatch.setenv("COLUMNS", "500")
    text = CliRunner().invoke(app, ["--help"]).stdout
    for name, field in RerankerConfig.model_fields.items():
        present = name not in (
            "top_n",
            "on_error",
            "score_threshold",
            "min_answerable",
            "near_duplicates",
        )
        assert (f"--{name.replace('_', '-')} " in text) is present
        assert (field.description in text) is present
    assert "[default: smollm2-135m]" in text
    assert "One of 4bit, 8bit." in text


def test_a_commands_own_parameters_stay(tmp_path):
    config, name, loud = collect("word", "--loud", "--layers", "3")
    assert (config.layers, name, loud) == ((3, 3), "word", True)
    assert collect("--top-n", "3", without=("top_n",)).exit_code == 2


def test_flags_replace_the_file_and_the_file_replaces_defaults(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('layers = "all"\ndouble_query = true\ntop_n = 4\n')
    assert collect(top_n=3)[0] == RerankerConfig(top_n=3)
    assert collect("--top-n", 0, top_n=3)[0] == RerankerConfig(top_n=0)
    from_file = RerankerConfig(layers="all", double_query=True, top_n=4)
    assert collect("--config", file, top_n=3)[0] == from_file
    assert collect("--config", file, "--no-double-query", "--top-n", 0)[0] == RerankerConfig(
        layers="all", top_n=0
    )
    assert config_from_options(file, layers=None, model=None) == from_file
    assert config_from_options(None) == RerankerConfig()
    with pytest.raises(ConfigError, match="cannot read configuration"):
        config_from_options(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("auto", "auto"), ("all", "all"), ("10-13", (10, 13)), ("10,13", (10, 13)), ("7", (7, 7)),
        (" 0 - 1 ", (0, 1)),
    ],
)  # fmt: skip
def test_layers(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "10-", "-1", "10:13", "middle", "1-2-3", "1.5", "٣-٤"])
def test_layers_that_are_none(text):
    with pytest.raises(typer.BadParameter, match=r"allowed are auto, all, 10-13"):
        parse_layers(text)


def test_heads():
    assert parse_heads("20-15, 21-11") == ((20, 15), (21, 11))
    for text in ("", "20", "20-15,", "20:15", "a-b"):
        with pytest.raises(typer.BadParameter, match="write layer-head pairs"):
            parse_heads(text)
