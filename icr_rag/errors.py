"""Every exception that icr_rag raises on purpose.

::

    ICRError
    ├── ConfigError (ValueError)         a setting has a value that is not allowed
    ├── InputError (ValueError)          a query, document or argument cannot be ranked
    ├── PromptTooLongError (ValueError)  the prompt does not fit the model's context
    ├── ModelLoadError (RuntimeError)    weights, tokenizer or config could not be loaded
    │   ├── UnsupportedModelError        the model's attention cannot be read
    │   └── DownloadError                the embedded model could not be fetched or verified
    ├── DeviceMemoryError (RuntimeError) the accelerator has too little memory
    ├── NonFiniteScoreError (ArithmeticError)  the model produced NaN or infinity
    ├── EmbedderError (RuntimeError)     the caller's embedding model failed
    ├── ClosedError (RuntimeError)       the reranker was closed
    ├── OverloadedError (RuntimeError)   the server's queue is full
    ├── ForkedError (RuntimeError)       the process was forked after a model had run
    ├── DataError (ValueError)           a file of documents, runs or judgements is malformed
    └── MissingDependencyError (ImportError)   an optional package is not installed

Each also derives from the built-in exception that fits, so ``except ValueError`` keeps working.
Messages name the value received, the values allowed and what to do next.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class ICRError(Exception):
    """Base of all errors raised by icr_rag."""


class ConfigError(ICRError, ValueError):
    """A configuration field has a value that is not allowed."""


class InputError(ICRError, ValueError):
    """A query, a document or an argument of a call cannot be used."""


class PromptTooLongError(ICRError, ValueError):
    """The prompt cannot be made to fit the model's context or the token budget."""


class ModelLoadError(ICRError, RuntimeError):
    """A model could not be loaded."""


class UnsupportedModelError(ModelLoadError):
    """The model does not use the standard transformers attention interface."""


class DownloadError(ModelLoadError):
    """The embedded model could not be downloaded, or what arrived is not what was expected."""


class DeviceMemoryError(ICRError, RuntimeError):
    """The accelerator ran out of memory even with the smallest prefill chunk."""


class NonFiniteScoreError(ICRError, ArithmeticError):
    """The model produced NaN or infinity where an attention weight was due."""


class EmbedderError(ICRError, RuntimeError):
    """The embedding model that was given as ``embedder`` failed, or gave no vectors."""


class ClosedError(ICRError, RuntimeError):
    """The reranker was used after ``close()``."""


class OverloadedError(ICRError, RuntimeError):
    """The server has as many requests waiting as it may; try again later.

    Attributes:
        retry_after: seconds after which there should be room.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ForkedError(ICRError, RuntimeError):
    """The process was forked after a model had run in its parent, and could not compute."""


class DataError(ICRError, ValueError):
    """A data file (corpus, queries, judgements, run) is missing or malformed."""


class MissingDependencyError(ICRError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


def shown(value: object) -> str:
    """``value`` as messages name it: its repr, cut, because it may be a whole document."""
    return brief(repr(value), 80)


def brief(text: str, most: int = 500) -> str:
    """``text`` with an ellipsis in place of what is beyond ``most`` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module`` or raise the one-line error that names the extra to install.

    Args:
        module: dotted module name.
        extra: the extra of icr_rag that brings it.
        purpose: what needs it, as the start of the sentence ("The command line").

    Raises:
        MissingDependencyError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is present but broken inside must show its own error.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs {module.split('.')[0]}: pip install 'icr-rag[{extra}]'"
        ) from error
