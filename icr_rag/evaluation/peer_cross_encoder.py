"""sentence-transformers' `CrossEncoder` on a causal LM: its yes/no scoring, on our weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, MissingDependencyError, require
from icr_rag.evaluation.peer_base import NotRunHere, ranking_of
from icr_rag.model.device import choose_dtype, resolve_device
from icr_rag.model.loading import load_config
from icr_rag.order import stable_order
from icr_rag.types import Document, Ranking, Usage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_QUESTION = (
    '"Passage: " ~ document ~ "\\n\\nQuery: " ~ query ~ "\\n\\nDoes the passage answer the query? '
    'Answer with yes or no."'
)
#: sentence-transformers gives a pair as one message in the role "query" and one in the role
#: "document"; templates of chat models know neither. This puts both into one question of the user.
_PAIR = (
    '{%- set query = (messages | selectattr("role", "eq", "query") | first).content -%}'
    '{%- set document = (messages | selectattr("role", "eq", "document") | first).content -%}'
    "{%- if query is not string %}{% set query = query[0].text %}{% endif -%}"
    "{%- if document is not string %}{% set document = document[0].text %}{% endif -%}"
)
_CHAT = (
    _PAIR
    + '{%- set messages = [{"role": "user", "content": '
    + _QUESTION
    + "}] -%}{%- set add_generation_prompt = true -%}"
)
#: For a model without a chat template.
_PLAIN = _PAIR + "{{ " + _QUESTION + ' }}{{ "\\nAnswer: " }}'


class CrossEncoderPeer:
    """Ranks by the logit of one answer minus that of another, as the module `LogitScore` does.

    Documents are cut to ``config.max_document_tokens``, as ours are.

    Args:
        config: which model, where, in which number format.
        batch_size: prompts run at once.
        yes, no: the answers; the first token of each is compared.

    Raises:
        NotRunHere: without sentence-transformers 6 or later.
        ModelLoadError: if the model cannot be loaded.
    """

    def __init__(
        self, config: RerankerConfig, batch_size: int = 8, yes: str = "yes", no: str = "no"
    ) -> None:
        try:
            library = require("sentence_transformers", "dev", "The peer cross_encoder")
        except MissingDependencyError as error:
            raise NotRunHere(str(error)) from error
        try:
            from sentence_transformers.base.modules import Transformer
            from sentence_transformers.cross_encoder.modules import LogitScore
        except ImportError as error:
            raise NotRunHere(
                f"sentence-transformers {library.__version__} cannot score with a causal LM; 6.0 "
                "or later is needed"
            ) from error
        whole, _, source = load_config(config)
        device = resolve_device(config.device)
        stored = str(whole.dtype).removeprefix("torch.") if whole.dtype is not None else None
        hub = {
            "local_files_only": config.local_files_only,
            "trust_remote_code": config.trust_remote_code,
            **({} if config.revision is None else {"revision": config.revision}),
        }
        import transformers

        # Asked before, because a Transformer without a template takes pairs as plain text.
        own = transformers.AutoTokenizer.from_pretrained(source, **hub).chat_template
        transformer = Transformer(
            source,
            transformer_task="text-generation",
            model_kwargs={**hub, "dtype": choose_dtype(device, config.dtype, stored).dtype},
            processor_kwargs={**hub, "chat_template": _PLAIN if own is None else _CHAT + own},
            config_kwargs=dict(hub),
        )
        self.tokenizer = transformer.tokenizer
        scorer = LogitScore(*_answer_tokens(self.tokenizer, yes, no))
        self.encoder = library.CrossEncoder(modules=[transformer, scorer], device=device)
        transformer.register_forward_pre_hook(self._count)
        self.config = config
        self.batch_size = batch_size
        self.calls = self.tokens = 0

    def rank(self, query: str, documents: Sequence[Document]) -> Ranking:
        """All documents, best first; equal scores keep their order."""
        self.calls = self.tokens = 0
        cut = [self._cut(document.content) for document in documents]
        scores = self.encoder.predict(
            [(query, text) for text in cut],
            batch_size=self.batch_size,
            show_progress_bar=False,
            # The logits as they are: a sigmoid would make ties of large ones.
            activation_fn=_identity,
        )
        truncated = [i for i, d in enumerate(documents) if cut[i] != d.content]
        usage = Usage(tokens=self.tokens, calls=self.calls, truncated=tuple(truncated))
        return ranking_of(stable_order([float(score) for score in scores]), documents, usage)

    def close(self) -> None:
        """Let go of the weights."""
        self.encoder = None

    def _cut(self, text: str) -> str:
        most = self.config.max_document_tokens
        if most is None:
            return text
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return text if len(ids) <= most else str(self.tokenizer.decode(ids[:most]))

    def _count(self, module: object, arguments: tuple[Mapping[str, torch.Tensor], ...]) -> None:
        """What the model is given; padding is no token."""
        mask = arguments[0]["attention_mask"]
        self.calls += mask.shape[0]
        self.tokens += int(mask.sum())


def _identity(values: T) -> T:
    return values


def _answer_tokens(tokenizer: PreTrainedTokenizerBase, yes: str, no: str) -> tuple[int, int]:
    """The first token of each answer."""
    first = []
    for word in (yes, no):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ConfigError(f"cross_encoder: the answer {word!r} has no tokens; give a word")
        first.append(ids[0])
    if first[0] == first[1]:
        raise ConfigError(
            f"cross_encoder: {yes!r} and {no!r} begin with the same token; give other words as "
            "options yes and no"
        )
    return first[0], first[1]
