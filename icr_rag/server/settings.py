"""What can be set of a server, beside the reranker's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from icr_rag.config_errors import explain
from icr_rag.errors import ConfigError
from icr_rag.server.addresses import is_loopback

#: One header's worth of any key, and no key that is guessed in a day.
_SHORTEST_KEY = 8


class ServerSettings(BaseModel):
    """Settings of a server. Immutable; checked when they are made.

    Raises:
        ConfigError: naming the setting, the value received and the values allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- who may call ----------------------------------------------------------------------
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0: any that is free.")
    keys_file: str | None = Field(
        None,
        min_length=1,
        description="File of API keys, one a line; comments begin with '#', after a blank or at a "
        "line's beginning. Read again when it changes, so that keys are rotated without a restart.",
    )
    api_key: SecretStr | None = Field(
        None, description="One API key more; best by the environment, ICR_RAG_API_KEY."
    )
    allow_public: bool = Field(
        False, description="Listen on an address that others reach though there is no key."
    )

    model_name: str | None = Field(
        None,
        min_length=1,
        description="What the model is called in answers. None: its name, of a path the last part.",
    )

    # --- what is taken -------------------------------------------------------------------------
    max_body_bytes: int = Field(
        16 * 2**20, ge=1024, description="Largest body of a request, in bytes."
    )
    max_documents: int = Field(1000, ge=1, description="Most documents of one request.")
    max_query_chars: int = Field(16_384, ge=1, description="Most characters of a query.")
    max_document_chars: int = Field(200_000, ge=1, description="Most characters of a document.")

    # --- waiting and batches -------------------------------------------------------------------
    queue_requests: int = Field(
        256, ge=1, description="Requests that may wait; one more is answered 429."
    )
    queue_documents: int = Field(
        10_000, ge=1, description="Documents that may wait; a request beyond is answered 429."
    )
    batch_tokens: int = Field(
        16_384,
        ge=1,
        description="Tokens, estimated as a quarter of the bytes, of requests that are ranked "
        "together. A larger request is ranked by itself.",
    )
    batch_wait_ms: float = Field(
        2.0,
        ge=0,
        le=10_000,
        description="How long an idle server waits for a second request to rank with the first.",
    )

    score_cache: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="Where scores are kept, so that the same query and document cost no pass: "
        "'memory', 'memory:MIB', or 'redis://HOST:PORT/DB' for several servers. None: nowhere.",
    )

    # --- time ----------------------------------------------------------------------------------
    deadline_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds in which a request is answered that names no deadline itself, "
        "with what can be done until then. None: as long as it takes.",
    )
    header_timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds in which a request's headers must have come."
    )
    body_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds in which a request's body must have come."
    )
    shutdown_grace: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds in which requests that were accepted are finished on shutdown.",
    )

    # --- what is told --------------------------------------------------------------------------
    log_format: Literal["json", "text"] = Field(
        "json", description="Form of log lines: 'json' or 'text'."
    )
    access_log: bool = Field(True, description="One log line per request.")

    def __init__(self, **data: object) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self).model_fields)) from error

    @model_validator(mode="after")
    def _check(self) -> ServerSettings:
        key = None if self.api_key is None else self.api_key.get_secret_value()
        if key is not None:
            problem = wrong_key(key)
            if problem is not None:
                raise ConfigError(f"api_key {problem}")
        if self.open_to_all and not self.allow_public:
            raise ConfigError(
                f"host={self.host!r} can be reached by others, and there is no API key; set "
                "keys_file or ICR_RAG_API_KEY, or allow_public if a proxy checks who calls"
            )
        return self

    @property
    def open_to_all(self) -> bool:
        """Whether others than this machine may call without a key."""
        return self.keys_file is None and self.api_key is None and not is_loopback(self.host)


def wrong_key(key: str) -> str | None:
    """What is wrong with an API key, without saying it; None if nothing is."""
    if len(key) < _SHORTEST_KEY:
        return f"has {len(key)} characters; allowed are {_SHORTEST_KEY} or more"
    if not (key.isascii() and key.isprintable()) or " " in key:
        return "has characters that no header can hold; allowed are printable ASCII, no blanks"
    return None
