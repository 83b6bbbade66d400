"""``icr-rag doctor``: what is installed, what would be chosen, what a model would cost."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from icr_rag import RerankerConfig, __version__
from icr_rag.cli.console import output_console, shown_layers, working, write_json
from icr_rag.cli.options import with_reranker_options
from icr_rag.config_scores import counts_first_stage
from icr_rag.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from icr_rag.scoring.choice import Choice

#: Optional distributions and the extra that brings each.
_OPTIONAL = {
    "llama-index-core": "llama-index",
    "langchain-core": "langchain",
    "typer": "cli",
    "rich": "cli",
    "bm25s": "cli",
    "PyStemmer": "cli",
    "ir-measures": "cli",
    "gguf": "gguf",
}
#: Optional distributions that no extra brings, because they need an accelerator of the right kind.
_BY_HAND = {"bitsandbytes": "quantization=4bit or 8bit", "flash-attn": "flash_attention_2"}


@dataclass(frozen=True)
class Cost:
    """Memory that a model's lower layers need.

    Attributes:
        layers: "10-13 of 30" and the reason.
        parameters: of the layers kept and the token embeddings.
        weight_bytes: their size in the dtype chosen.
        whole_weight_bytes: the same for the whole model without LM head.
        cache_bytes_per_1000_tokens: keys and values of the prompt.
        states_bytes_per_1000_tokens: of documents that are kept: way of keeping -> bytes.
    """

    layers: str
    reason: str
    parameters: int
    weight_bytes: int
    whole_weight_bytes: int
    cache_bytes_per_1000_tokens: int
    states_bytes_per_1000_tokens: dict[str, int]
    context: int | None


@dataclass(frozen=True)
class Report:
    """What is shown; as JSON under these names, in this order.

    Attributes:
        optional: distribution -> its version and the extra that brings it, each None for none.
        cores: what `Cores` says, and how many of them are usable.
        embedded_models: name -> where it is cached.
        cpu_layer_seconds: the times behind the choice of dtype, which is made by their ratio.
        scoring, scoring_reason: what is taken for relevance, and why; as `cost`, None where the
            model would have to be fetched to tell.
        cost: what the model's layers cost.
        first_stage: what of it counts, and where it comes from.
    """

    icr_rag: str
    python: str
    torch: str
    transformers: str
    optional: dict[str, dict[str, str | None]]
    devices: list[str]
    device: str
    threads: int
    cores: dict[str, float | None]
    threads_advice: str | None
    cache: str
    embedded_models: dict[str, str | None]
    model: str
    scoring: str | None
    scoring_reason: str | None
    cpu_layer_seconds: dict[str, float] | None
    cost: Cost | None
    dtype: str
    dtype_reason: str
    first_stage: str


@with_reranker_options(without=("top_n",))
def doctor(
    config: RerankerConfig,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show what is installed, the device and dtype chosen and why, and what a model costs.

    No weights are loaded: the cost comes from the model's configuration.

    icr-rag doctor --model Qwen/Qwen3-0.6B --device cpu
    """
    with working("looking around"):
        report = _examine(config)
    if as_json:
        write_json(asdict(report))
        return
    out = output_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(report):
        # Text, not str: the brackets of an extra and of a path are no markup.
        table.add_row(name, Text(value))
    out.print(table)


def examine(config: RerankerConfig) -> dict[str, object]:
    """Everything that ``doctor`` shows, as JSON types.

    Raises:
        ConfigError: if the device is not there or the layers are not in the model.
        ModelLoadError: if the model's configuration cannot be had.
    """
    return asdict(_examine(config))


def _examine(config: RerankerConfig) -> Report:
    import torch
    import transformers

    from icr_rag.model.cache_folder import cache_root
    from icr_rag.model.device import choose_dtype, measure_layer_seconds, resolve_device
    from icr_rag.model.embedded import EMBEDDED_MODELS, embedded_model_path
    from icr_rag.model.threads import advice, cores
    from icr_rag.scoring.choice import choose

    device = resolve_device(config.device)
    limits = cores()
    embedded = {name: embedded_model_path(name, config.cache_dir) for name in EMBEDDED_MODELS}
    cost: Cost | None = None
    chosen: Choice | None = None
    if config.model in embedded and embedded[config.model] is None:
        # Looking should not fetch a hundred megabytes.
        dtype = choose_dtype(device, config.dtype, None)
    else:
        whole, text_config = _load_config(config)
        stored = getattr(text_config, "dtype", None)
        name = None if stored is None else str(stored).removeprefix("torch.")
        dtype = choose_dtype(device, config.dtype, name)
        chosen = choose(config, text_config)
        cost = estimate_cost(config, whole, text_config, dtype.torch_dtype)
    return Report(
        icr_rag=__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        transformers=transformers.__version__,
        optional={
            name: {"version": _version(name), "extra": _OPTIONAL.get(name)}
            for name in (*_OPTIONAL, *_BY_HAND)
        },
        devices=_devices(),
        device=device,
        threads=torch.get_num_threads(),
        cores={**asdict(limits), "usable": limits.usable},
        threads_advice=advice(torch.get_num_threads(), limits),
        cache=str(cache_root(config.cache_dir)),
        embedded_models={
            name: None if path is None else str(path) for name, path in embedded.items()
        },
        model=config.model,
        scoring=None if chosen is None else chosen.config.scoring,
        scoring_reason=None if chosen is None else chosen.reason,
        cpu_layer_seconds=dict(measure_layer_seconds()) if device == "cpu" else None,
        cost=cost,
        dtype=dtype.dtype,
        dtype_reason=dtype.reason,
        first_stage=_first_stage(config),
    )


def _first_stage(config: RerankerConfig) -> str:
    """What of the first stage counts with these settings, and how to pass it."""
    if not counts_first_stage(config):
        return f"does not count: fusion={config.fusion!r}, score_mode={config.score_mode!r}"
    if config.fusion != "auto":
        return f"fusion={config.fusion!r}; usage.fused tells the weights"
    asked = ", ".join(f"{name} {weight:g}" for name, weight in config.first_stage_weights or ())
    otherwise = "" if config.embedder is None else f" Without such scores {config.embedder} embeds."
    return (
        "its scores count where they come with the candidates: rank(retrieval_scores=...), "
        "LlamaIndex's and Haystack's scores, LangChain's metadata['score'] or "
        "retrieval_score_key=; those within -1 and 1 as much as the model, others by their order. "
        f"None come? Set embedder=.{otherwise} Weights by name: {asked or 'none'}. "
        "fusion='none' leaves all out; usage.fused tells what counted"
    )


def _load_config(config: RerankerConfig) -> tuple[PretrainedConfig, PretrainedConfig]:
    """The model's whole configuration and the part of it for text."""
    from icr_rag.model.embedded import EMBEDDED_MODELS
    from icr_rag.model.gguf import gguf_config
    from icr_rag.model.loading import load_config
    from icr_rag.model.source import is_gguf, named_path

    path = None if config.model in EMBEDDED_MODELS else named_path(config.model)
    if path is not None and is_gguf(path):
        # Loading would convert the file first; its header says all that is needed here.
        whole = gguf_config(path)
        return whole, whole.get_text_config(decoder=True)
    whole, text_config, _ = load_config(config)
    return whole, text_config


def estimate_cost(
    config: RerankerConfig,
    whole: PretrainedConfig,
    text_config: PretrainedConfig,
    dtype: torch.dtype,
) -> Cost:
    """What the layers that ``config`` reads would cost, without loading a weight."""
    import torch
    import transformers

    from icr_rag.calls.load import depth_run
    from icr_rag.model.cut import truncated_config
    from icr_rag.scoring.choice import choose

    chosen = choose(config, text_config)
    selection = chosen.selection
    every = list(range(text_config.num_hidden_layers))
    layers = every if selection is None else selection.layers
    deepest, _ = depth_run(config, text_config)
    sizes = []
    for depth in (deepest, text_config.num_hidden_layers):
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(truncated_config(whole, text_config, depth))
        count = sum(parameter.numel() for parameter in model.parameters())
        # Only linear layers are quantised; embeddings and norms stay as they are.
        bits = {None: 8 * dtype.itemsize, "8bit": 8, "4bit": 4}[config.quantization]
        linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
        sizes.append((count, (count - linear) * dtype.itemsize + linear * bits // 8))
    heads = getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
    size = getattr(text_config, "head_dim", None) or (
        text_config.hidden_size // text_config.num_attention_heads
    )
    # Keys and values below the last layer read, keys alone at it; with the LM head both of all.
    tensors = 2 * deepest if chosen.method.needs_lm_head else 2 * layers[-1] + 1
    return Cost(
        layers=f"{shown_layers(layers)} of {text_config.num_hidden_layers}",
        reason="no attention is read" if selection is None else selection.source,
        parameters=sizes[0][0],
        weight_bytes=sizes[0][1],
        whole_weight_bytes=sizes[1][1],
        cache_bytes_per_1000_tokens=1000 * heads * size * dtype.itemsize * tensors,
        states_bytes_per_1000_tokens=_states_sizes(config, text_config, dtype.itemsize),
        context=getattr(text_config, "max_position_embeddings", None),
    )


def _states_sizes(
    config: RerankerConfig, text_config: PretrainedConfig, item_bytes: int
) -> dict[str, int]:
    """What documents would take up, kept in each way that goes with this way of scoring."""
    from icr_rag.scoring.choice import choose
    from icr_rag.states.size import bytes_per_token

    sizes = {}
    for kept in ("independent", "blind"):
        for stored in (config.states_dtype, "int8"):
            try:
                # States of a way of scoring whose prompts cannot be kept have no size.
                changed = config.switched(document_states=kept, states_dtype=stored, cascade=None)
                chosen = choose(changed, text_config)
            except ConfigError:
                continue
            name = kept if stored == "same" else f"{kept}, {stored}"
            heads = {} if chosen.selection is None else chosen.selection.heads
            each = bytes_per_token(chosen.config, text_config, heads, item_bytes)
            sizes[name] = round(1000 * each)
    return sizes


def _devices() -> list[str]:
    """Every device that torch can use here, by the name that `device` takes."""
    import torch

    devices = [f"cpu: torch uses {torch.get_num_threads()} thread(s)"]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        size = properties.total_memory / 2**30
        devices.append(f"cuda:{number}: {properties.name}, {size:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps: Metal")
    return devices


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sizes(sizes: dict[str, int]) -> str:
    if not sizes:
        return "none: this way of scoring puts the query before the document"
    listed = "; ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in sizes.items())
    return f"per 1,000 tokens: {listed}"


def _core_lines(report: Report) -> list[tuple[str, str]]:
    """The processor's cores and, where torch has more threads than those, what to do."""
    found = report.cores
    quota = "no quota" if found["quota"] is None else f"a quota of {found['quota']:g}"
    told = report.threads_advice
    cores = (
        f"{found['visible']} visible, {found['allowed']} allowed by affinity, {quota}: "
        f"{found['usable']} usable"
    )
    return [("cores", cores), *([] if told is None else [("", told)])]


def _unmeasured_lines(report: Report) -> list[tuple[str, str]]:
    """What to do where nobody has measured which way of scoring suits the model."""
    from icr_rag.scoring.choice import UNMEASURED

    if report.scoring_reason != UNMEASURED:
        return []
    return [("", "`icr-rag profile` makes one with figures; scoring='likelihood' needs none")]


def _lines(report: Report) -> list[tuple[str, str]]:
    lines = [
        ("icr_rag", f"{report.icr_rag} on Python {report.python}"),
        ("torch", report.torch),
        ("transformers", report.transformers),
    ]
    for name, found in report.optional.items():
        if found["extra"] is not None:
            missing = f"not installed: pip install 'icr-rag[{found['extra']}]'"
        else:
            missing = f"not installed (only for {_BY_HAND[name]})"
        lines.append((name, missing if found["version"] is None else found["version"]))
    lines += [("devices" if n == 0 else "", text) for n, text in enumerate(report.devices)]
    lines += _core_lines(report)
    lines.append(("device", report.device))
    lines.append(("dtype", f"{report.dtype} ({report.dtype_reason})"))
    if report.cpu_layer_seconds is not None:
        timed = report.cpu_layer_seconds.items()
        lines.append(("", ", ".join(f"{name} {1000 * s:.1f} ms" for name, s in timed)))
    lines.append(("cache", report.cache))
    for name, path in report.embedded_models.items():
        state = "not cached; fetched on first use" if path is None else f"cached in {path}"
        lines.append((f"embedded {name}", state))
    lines.append(("first stage", report.first_stage))
    cost = report.cost
    lines.append(("model", report.model))
    if cost is not None:
        weights, whole = cost.weight_bytes / 2**20, cost.whole_weight_bytes / 2**20
        cache = cost.cache_bytes_per_1000_tokens / 2**20
        lines += [
            ("  scoring", f"{report.scoring} ({report.scoring_reason})"),
            *_unmeasured_lines(report),
            ("  layers", f"{cost.layers} ({cost.reason})"),
            ("  weights", f"{weights:,.0f} MiB of {whole:,.0f} MiB; the rest is not loaded"),
            ("  prompt", f"{cache:,.1f} MiB of keys and values per 1,000 tokens"),
            ("  kept states", _sizes(cost.states_bytes_per_1000_tokens)),
            ("  context", f"{cost.context:,} tokens" if cost.context else "not stated"),
        ]
    return lines
