"""Replicas that are reached through Ray Serve, and the router that sends calls to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from icr_rag.errors import ICRError, OverloadedError, brief, require
from icr_rag.server.affinity import preferred
from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.replicas import ReplicaLostError

require("ray.serve", "ray", "The server on several machines")

from ray import exceptions as ray_errors  # noqa: E402
from ray.serve import exceptions as serve_errors  # noqa: E402
from ray.serve.request_router import RequestRouter  # noqa: E402

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle
    from ray.serve.request_router import PendingRequest, RunningReplica

#: What says that a replica or what it had made is gone, rather than that the call was wrong.
_LOST = (
    ray_errors.RayActorError,
    ray_errors.ObjectLostError,
    ray_errors.NodeDiedError,
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    serve_errors.ReplicaUnavailableError,
    serve_errors.DeploymentUnavailableError,
)


class RayReplicas:
    """The replicas of one deployment (`icr_rag.server.replicas.Replicas`).

    Args:
        handle: of a deployment of `icr_rag.server.ray_replica.RerankerReplica`.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def __call__(self, call: RerankCall, key: str) -> RerankAnswer | ICRError:
        """What one replica answers; see `Replicas`."""
        response = self._handle.rerank.remote(call, key)
        try:
            outcome: RerankAnswer | ICRError = await response
        except asyncio.CancelledError:
            # Nobody waits for it: what has not begun in the replica does not begin.
            response.cancel()
            raise
        except serve_errors.BackPressureError as error:
            raise OverloadedError(
                "all replicas have as many calls waiting as they may; try again later"
            ) from error
        except _LOST as error:
            raise ReplicaLostError(brief(str(error), 200)) from error
        return outcome


class DocumentSetRouter(RequestRouter):  # type: ignore[misc]  # Ray is not there for type checkers
    """Sends calls with the same key to the same replica, while that has room.

    The second argument of a call is its key (`icr_rag.server.affinity.document_set_key`). Replicas
    are tried in the order of `preferred`: the next one where the first has
    ``max_ongoing_requests`` under way, or is gone. No other signal counts: queue lengths would
    send the same documents to several replicas, of which each would encode them.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """All candidates, one per rank, the first choice first."""
        if pending_request is None:
            return [candidate_replicas]
        # Where all are full, the next round waits longer.
        pending_request.routing_context.should_backoff = True
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[by_name[name]] for name in preferred(_key(pending_request), by_name)]


def _key(request: PendingRequest) -> str:
    """The key of a call; a request that has none, as health checks, goes by its own id."""
    arguments = request.args
    if len(arguments) > 1 and isinstance(arguments[1], str):
        return arguments[1]
    own: str = request.metadata.internal_request_id
    return own
