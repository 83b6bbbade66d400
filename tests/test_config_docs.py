"""docs/configuration.md: its examples say the same, and what it says of adapters is so."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError, MissingDependencyError

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "configuration.md").read_text("utf-8")
ADAPTERS = {
    name: set(re.findall(r"`(\w+)`", keywords))
    for name, keywords in re.findall(r"^\| `([\w.]+\.\w+)` \|(.*)\|$", PAGE, flags=re.MULTILINE)
}
#: Adapters with a number of results of their own, for which the page has a paragraph.
OTHERS = [
    "compat.llama_index.SentenceTransformerRerank",
    "compat.llama_index.LLMRerank",
    "compat.llama_index.RankGPTRerank",
    "compat.langchain.CohereRerank",
]


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL).group(1)


@pytest.fixture
def files(tmp_path):
    """The page's YAML and TOML examples as files."""
    for language in ("yaml", "toml"):
        (tmp_path / f"reranker.{language}").write_text(block(language), encoding="utf-8")
    return tmp_path


def environment():
    lines = (shlex.split(line)[0].partition("=") for line in block("sh").splitlines())
    return {name: value for name, _, value in lines}


def adapter(name):
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(f"icr_rag.integrations.{module}"), attribute)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def settings(made):
    return getattr(made, "reranker", made).config


def test_the_three_examples_are_the_same_settings(files):
    from_yaml = RerankerConfig.from_file(files / "reranker.yaml")
    assert from_yaml == RerankerConfig.from_file(files / "reranker.toml")
    assert from_yaml == RerankerConfig.from_env(environment=environment())
    assert from_yaml.model_fields_set == set(re.findall(r"^(\w+):", block("yaml"), re.MULTILINE))
    assert from_yaml.heads == ((10, 3), (12, 0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*ADAPTERS, *OTHERS])
def test_an_adapter_reads_files_and_variables_and_keywords_go_before(name, files, monkeypatch):
    made = adapter(name)
    for variable, value in environment().items():
        monkeypatch.setenv(variable.replace("ICR_RAG_", "MINE_"), value)
    expected = RerankerConfig.from_file(files / "reranker.yaml")
    by_file = made.from_config(files / "reranker.yaml")
    assert settings(by_file) == expected
    assert settings(made.from_config(files / "reranker.toml")) == expected
    assert settings(made.from_env("MINE_")) == expected
    assert settings(made.from_config(files / "reranker.yaml", layers="10-14")).layers == (10, 14)
    # The number of results is that of the file, whatever the owner's signature says.
    assert getattr(by_file, "top_n", getattr(by_file, "top_k", expected.top_n)) == 5
    with pytest.raises(ConfigError, match="did you mean"):
        made.from_config(files / "reranker.yaml", layer="10-14")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["haystack.ICRRanker", *OTHERS])
def test_a_keyword_or_a_default_of_the_owner_decides_how_many(name, files):
    made = adapter(name)
    keyword = "top_k" if name.startswith("haystack") else "top_n"
    default = inspect.signature(made.__init__).parameters[keyword].default
    (files / "none.yaml").write_text("layers: all\n")
    assert getattr(made.from_config(files / "none.yaml"), keyword) == default
    assert getattr(made.from_config(files / "reranker.yaml", **{keyword: 7}), keyword) == 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_shares_an_llm_and_keeps_its_own_keywords(name, llama, tokenizer):
    made = adapter(name)
    named = inspect.signature(made.__init__).parameters
    keyword = "top_k" if "top_k" in named else "top_n"
    shared = made.from_llm(llama, tokenizer=tokenizer, layers=(1, 2), **{keyword: 3})
    assert settings(shared).layers == (1, 2)
    assert getattr(shared, keyword, settings(shared).top_n) == 3
    weights = {id(parameter) for parameter in llama.parameters()}
    assert {id(p) for p in shared.reranker.engine.decoder.parameters()} <= weights


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_table_names_the_keywords_that_no_file_sets(name):
    parameters = inspect.signature(adapter(name).__init__).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
    stand_for_settings = {
        "reranker", "config", "model_name_or_path", "device", "cache_folder", "trust_remote_code",
        "revision", "local_files_only", "max_length", "top_n", "top_k", "dtype",
    }  # fmt: skip
    assert ADAPTERS[name] == named - stand_for_settings


def test_every_adapter_is_in_the_table():
    folder = Path(importlib.import_module("icr_rag.integrations").__file__).parent
    modules = {p.stem for p in folder.glob("[a-z]*.py")}
    assert {name.partition(".")[0] for name in ADAPTERS} == modules
