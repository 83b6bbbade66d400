"""The server on several machines, as an application of Ray Serve.

::

    serve run icr_rag.server.ray_app:build config=reranker.yaml max_replicas=4

One *ingress* speaks HTTP: the same FastAPI application as ``icr-rag serve``, whose calls go out
(`ReplicatedAnswers`). Each model is a *deployment* of replicas with one `Reranker` each, so that
models scale by themselves and no replica swaps weights. Documents meet the replica that has their
states (`DocumentSetRouter`); a lost replica's calls go to another one.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from icr_rag.errors import ConfigError, require
from icr_rag.server.call import Answers
from icr_rag.server.ray_ingress import engine_settings, make_server
from icr_rag.server.ray_replica import MakeAnswers, RerankerReplica, WarmEngine
from icr_rag.server.ray_settings import ClusterSettings, ReplicaSettings
from icr_rag.server.replicas import Replicas, ReplicatedAnswers

require("ray.serve", "ray", "The server on several machines")

from ray import serve  # noqa: E402
from ray.serve.config import AutoscalingConfig, RequestRouterConfig  # noqa: E402

from icr_rag.server.ray_handles import DocumentSetRouter, RayReplicas  # noqa: E402

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

#: The name of the deployment that speaks HTTP.
INGRESS = "ingress"

#: From what answers calls, the ASGI application.
MakeApp = Callable[[Answers], "FastAPI"]


def build(args: dict[str, object]) -> Application:
    """The application for ``serve run`` and for ``import_path`` in a Serve config file.

    Switches Ray's usage reports off for a cluster that is started afterwards by this process; one
    that runs already keeps what it was started with.

    Args:
        args: fields of `icr_rag.server.ray_settings.ClusterSettings`, or with one model also those
            of `ReplicaSettings`.

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    settings = ClusterSettings.of(args)
    return application(settings, app_maker(settings.app, settings.server))


def application(
    settings: ClusterSettings, make_app: MakeApp, make_answers: MakeAnswers = WarmEngine
) -> Application:
    """An ingress over one deployment per model.

    Args:
        settings: models, replicas, retries.
        make_app: called in the ingress's process.
        make_answers: called in each replica's process; loads the model.
    """
    names = {
        name: f"reranker-{number}-{re.sub(r'[^A-Za-z0-9]+', '-', name)[-40:].strip('-')}"
        for number, name in enumerate(settings.models)
    }
    rerankers = [
        _deployment(names[name], own).bind(
            own.reranker_settings(), engine_settings(settings.server, name), make_answers
        )
        for name, own in settings.models.items()
    ]
    attempts, patience = settings.attempts, settings.patience

    def make_ingress() -> FastAPI:
        here = serve.get_replica_context().app_name
        replicas: dict[str, Replicas] = {
            name: RayReplicas(serve.get_deployment_handle(deployment, here))
            for name, deployment in names.items()
        }
        return make_app(ReplicatedAnswers(replicas, attempts=attempts, patience=patience))

    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=settings.ingress_replicas,
        # It waits for others: what it may have under way is bounded by their queues.
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=max(own.shutdown_grace for own in settings.models.values()),
    )(serve.ingress(make_ingress)())
    # The deployments are its arguments so that Serve deploys them; it finds them by name.
    bound: Application = ingress.bind(*rerankers)
    return bound


def app_maker(name: str | None, server: Mapping[str, object]) -> MakeApp:
    """The function that makes the ASGI application.

    Args:
        name: ``module:function``; None: the server's own.
        server: settings of the server's own.

    Raises:
        ConfigError: if there is no such function, or settings are given for another application.
    """
    if name is None:
        return make_server(server)
    if server:
        raise ConfigError(
            f"server={dict(server)!r} beside app={name!r}, which has its own; drop one"
        )
    module, _, function = name.partition(":")
    try:
        made: MakeApp = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"app={name!r}: {error}; give module:function") from error
    return made


def _deployment(name: str, own: ReplicaSettings) -> serve.Deployment:
    resources: dict[str, object] = {"num_cpus": own.num_cpus, "num_gpus": own.num_gpus}
    if own.memory_gb is not None:
        resources["memory"] = int(own.memory_gb * 1e9)
    return serve.deployment(
        name=name,
        ray_actor_options=resources,
        max_ongoing_requests=own.max_ongoing_requests,
        max_queued_requests=own.max_queued_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=own.min_replicas,
            max_replicas=own.max_replicas,
            target_ongoing_requests=own.target_ongoing_requests,
        ),
        request_router_config=RequestRouterConfig(request_router_class=DocumentSetRouter),
        graceful_shutdown_timeout_s=own.shutdown_grace,
        health_check_period_s=5,
        health_check_timeout_s=60,
    )(RerankerReplica)
