"""LlamaIndex: encode nodes in the ingestion pipeline, so that queries find their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeWithScore,
    TransformComponent,
)

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError
from icr_rag.integrations._config import named_errors, resolve_reranker
from icr_rag.integrations._llama_index_nodes import check_mode, check_node, documents_of
from icr_rag.reranker import Reranker


class ICREncode(TransformComponent):
    """Keeps the document states of nodes at indexing time.

    Put it last in ``IngestionPipeline(transformations=[...])``, behind what changes the text or
    the metadata that is embedded. Nodes pass unchanged. With the same settings and ``states_dir``
    an `ICRRerank` in another process then pays for the query's tokens only.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        metadata_mode: as in the `ICRRerank` that will rank these nodes.
        **fields: any field of `RerankerConfig`; ``document_states`` is "independent".

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """

    config: RerankerConfig = Field(frozen=True, description="Settings of the reranker.")
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Metadata that the model reads with the text."
    )
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        **fields: object,
    ) -> None:
        if reranker is None and config is None:
            fields = {"document_states": "independent", **fields}
        ready = resolve_reranker(reranker, config, fields)
        check_mode(ready.config, metadata_mode)
        with named_errors():
            super().__init__(config=ready.config, metadata_mode=metadata_mode)
        self._reranker = ready

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "ICREncode"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: object) -> Sequence[BaseNode]:
        """Encode what is not stored yet; the nodes as they are.

        Raises:
            InputError: for what is no node.
        """
        if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Sequence):
            raise InputError(f"nodes is a {type(nodes).__name__}; give a list of nodes")
        for index, node in enumerate(nodes):
            check_node(node, index)
        scored = [NodeWithScore(node=node) for node in nodes]
        self._reranker.encode(documents_of(scored, self.metadata_mode, self.config))
        return nodes
