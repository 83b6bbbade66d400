"""Readings of all layers and heads for labelled queries: what layers and heads are chosen from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from icr_rag.calls.candidates import Candidates
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.fields import check_given
from icr_rag.methods import resolve_framework
from icr_rag.model.reading import READINGS
from icr_rag.profiling.samples import Sample
from icr_rag.reranker import Reranker
from icr_rag.scoring.base import Cost, ReadsAttention
from icr_rag.scoring.mixed import MixedScorer
from icr_rag.types import Document


def profiling_config(config: RerankerConfig) -> RerankerConfig:
    """The same way of scoring, with every head of every layer read.

    Raises:
        ConfigError: for a way of scoring that reads no attention.
    """
    config = config.settled()
    framework = resolve_framework(config.scoring, config.framework)
    if not config.method.reads_attention:
        raise ConfigError(
            f"scoring={config.scoring!r} reads no attention; profiling is for 'attention' and "
            "'mixed'"
        )
    # Setwise reads the same prompts as listwise, so that what is found serves both.
    framework = "listwise" if framework == "setwise" else framework
    return config.switched(
        layers="all",
        heads="all",
        profile=None,
        framework=framework,
        reading="calibrated",
        score_mode="raw",
        fusion="none",
        cascade=None,
        window=None,
        stride=None,
        aggregation="sum",
        # Heads are judged by what they make of whole texts.
        passages="none",
    )


def reading_config(config: RerankerConfig) -> RerankerConfig:
    """`profiling_config`, which reads the likelihood too where one pass gives both.

    Raises:
        ConfigError: as `profiling_config`.
    """
    own = profiling_config(config)
    if own.scoring != "attention" or own.framework != "pointwise":
        return own
    both = profiling_config(config.switched(scoring="mixed"))
    # Not with settings that mean nothing to mixed and change what heads read.
    return both if both.switched(scoring="attention") == own else own


def collect(
    reranker: Reranker,
    dataset: Dataset,
    candidates: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    *,
    depth: int = 20,
    shuffle: int | None = 1,
    group: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sample]:
    """One `Sample` per query.

    Args:
        reranker: a `Reranker` with `profiling_config`.
        dataset: documents, queries, judgements.
        candidates: query id -> document ids, best first. Queries without any are left out.
        queries: ids.
        depth: how many candidates to read.
        shuffle: seed of their order in the prompt, so that it tells nothing; None: as given.
        group: name that tells this data from others; None: the data set's.
        progress: called with (finished, all) queries.

    Raises:
        PromptTooLongError: if a prompt cannot hold ``depth`` documents.
    """
    samples = []
    for number, query in enumerate(queries):
        if progress is not None:
            progress(number, len(queries))
        given = candidates.get(query, ())
        names = given_order(list(given), query, Setting(depth, shuffle))[:depth]
        if names:
            grades = dataset.judgements.get(query, {})
            documents = [dataset.documents[name] for name in names]
            sample = _read(reranker, query, dataset.queries[query], documents, names, grades,
                           group or dataset.name)  # fmt: skip
            samples.append(sample)
    if progress is not None:
        progress(len(queries), len(queries))
    return samples


def _read(
    reranker: Reranker,
    query_id: str,
    query: str,
    documents: Sequence[Document],
    names: Sequence[str],
    grades: Mapping[str, int],
    group: str,
) -> Sample:
    scorer = reranker.scorer
    config = reranker.config
    read = check_given(list(documents), config.rank_fields, config.rank_fields_format).read
    inputs = Candidates(scorer, query, read)
    cost = Cost()
    likelihood: torch.Tensor | None = None
    if isinstance(scorer, MixedScorer):
        likelihood, by_head = scorer.read(inputs.query_ids, inputs.token_ids, cost)
    elif isinstance(scorer, ReadsAttention):
        by_head = scorer.read_documents(inputs.query_ids, inputs.token_ids, cost, READINGS)
    else:
        raise ConfigError(f"{type(scorer).__name__} reads no attention; profiling needs it")
    heads = scorer.engine.text_config.num_attention_heads
    readings = by_head.view(len(by_head), len(scorer.layers), heads, len(READINGS)).numpy()
    # Distinct contents are read once; blank documents, which are never read, are left out.
    places = [place for place, owner in enumerate(inputs.owner) if owner is not None]
    owners = [owner for owner in inputs.owner if owner is not None]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    return Sample(
        query_id=query_id,
        group=group,
        readings=np.ascontiguousarray(readings[owners]),
        grades=np.array([max(0, grades.get(names[place], 0)) for place in places], dtype=np.int64),
        ideal=np.array(ideal, dtype=np.int64),
        likelihood=None if likelihood is None else likelihood.numpy()[owners],
        documents=tuple(names[place] for place in places),
    )


def make_question_writer(reranker: Reranker, new_tokens: int = 40) -> Callable[[str], str]:
    """A function that has the model write a question to a text (InPars, arXiv 2202.05144).

    Args:
        reranker: one with scoring="generation".
        new_tokens: most tokens of a question.
    """
    from icr_rag.model.greedy import generate
    from icr_rag.prompts.layout import PromptBatch
    from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts

    def write(text: str) -> str:
        engine = reranker.engine
        prompts = QueryLikelihoodPrompts(engine.tokenizer)
        ids = prompts.encode_documents([text])[0][:512]
        built = prompts.build([0], [ids])
        answer = generate(engine, PromptBatch(built.head_ids, built.bodies), new_tokens).texts[0]
        return answer.strip().split("\n")[0]

    return write
