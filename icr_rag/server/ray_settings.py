"""What a server on several machines is set to: its models, how many replicas, how calls retry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from icr_rag.config import RerankerConfig
from icr_rag.config_errors import explain
from icr_rag.config_sources import read_config_file
from icr_rag.errors import ConfigError
from icr_rag.server.score_choice import public_name


class ReplicaSettings(BaseModel):
    """One model and its replicas.

    Attributes:
        config: YAML or TOML file with settings of the reranker, read where the application is
            built; every machine needs the files that it names, such as the model and a profile.
        reranker: fields of `RerankerConfig`, which replace those of the file; ``device_map``
            spreads a large model over the accelerators of one replica.
        min_replicas: kept up without any call; 0: none, and the first call waits for the model.
        max_replicas: never more than these.
        target_ongoing_requests: calls under way or waiting, per replica, that Serve adds and
            removes replicas for.
        max_ongoing_requests: calls under way or waiting in one replica; further ones go to the
            next replica, although the documents' states may not be there.
        max_queued_requests: calls that wait for any replica, per ingress, before they are refused
            (429); -1: no limit.
        num_cpus: CPU cores that Ray counts for a replica; its threads follow (OMP_NUM_THREADS).
        num_gpus: accelerators, fractions allowed; 0: none.
        memory_gb: gigabytes of memory that Ray counts for a replica; None: not counted.
        shutdown_grace: seconds in which a replica that is to go may finish what it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str | None = None
    reranker: dict[str, object] = Field(default_factory=dict)
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(4.0, gt=0)
    max_ongoing_requests: int = Field(16, ge=1)
    max_queued_requests: int = Field(256, ge=-1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    shutdown_grace: float = Field(20.0, ge=0)

    @model_validator(mode="after")
    def _check_replicas(self) -> ReplicaSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than max_replicas="
                f"{self.max_replicas}; raise the one or lower the other"
            )
        return self

    def reranker_settings(self) -> dict[str, object]:
        """The reranker's settings, checked; those that are not given are left out.

        Raises:
            ConfigError: if the file or a setting is wrong.
        """
        given = {} if self.config is None else read_config_file(Path(self.config))
        made = RerankerConfig(**{**given, **self.reranker})
        # What is not given stays so: a server chooses a score mode where none is.
        return made.model_dump(mode="json", exclude_unset=True)


_REPLICAS = tuple(ReplicaSettings.model_fields)


class ClusterSettings(BaseModel):
    """A server on several machines.

    Attributes:
        models: by the name that calls name them; a call that names none goes to the first.
        attempts: replicas that a call may be sent to, where one after the other is lost.
        patience: seconds that an attempt without a deadline may take.
        ingress_replicas: processes that speak HTTP; the rankings are not made in them.
        app: ``module:function``, given an `icr_rag.server.call.Answers`, returns the ASGI
            application; None: the server's own.
        server: fields of `icr_rag.server.settings.ServerSettings`: limits and keys for the ingress,
            queue and batches for each replica.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, ReplicaSettings] = Field(min_length=1)
    attempts: int = Field(3, ge=1)
    patience: float = Field(300.0, gt=0)
    ingress_replicas: int = Field(1, ge=1)
    app: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    server: dict[str, object] = Field(default_factory=dict)

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> ClusterSettings:
        """From the arguments of ``serve run`` or the ``args`` of a Serve config file.

        With one model its settings may stand beside the others, without ``models``: the name is
        then the model's own, of a path its last part.

        Raises:
            ConfigError: naming the setting, the value received and what is allowed.
        """
        own = {name: value for name, value in arguments.items() if name in _REPLICAS}
        rest = {name: value for name, value in arguments.items() if name not in _REPLICAS}
        if own and "models" in rest:
            raise ConfigError(
                f"{', '.join(own)} beside models; with models, each has settings of its own"
            )
        if "models" not in rest:
            rest["models"] = {_model_name(own): own}
        try:
            return cls.model_validate(rest)
        except ValidationError as error:
            known = [*cls.model_fields, *_REPLICAS]
            places = {".".join(map(str, item["loc"][:-1])) for item in error.errors()}
            where = "; ".join(sorted(place for place in places if place))
            raise ConfigError(
                explain(error, known) + (f" (in {where})" if where else "")
            ) from error


def _model_name(own: Mapping[str, object]) -> str:
    """The name of the one model, which its settings say."""
    return public_name(RerankerConfig(**_replica_settings(own).reranker_settings()).model)


def _replica_settings(own: Mapping[str, object]) -> ReplicaSettings:
    try:
        return ReplicaSettings.model_validate(own)
    except ValidationError as error:
        raise ConfigError(explain(error, _REPLICAS)) from error
