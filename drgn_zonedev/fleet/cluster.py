# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A Dask Cluster
--------------

Has the workers of a Dask cluster check dumps, a task per dump. Scheduling, retries and workers
that die are Dask's business; the store stays with the client.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Callable

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits, Task, check_alone
from drgn_zonedev.fleet.run import Engine, StoppedError

__all__ = ("LOCAL", "Cluster", "ClusterError", "connected_cluster", "versions_here")

LOCAL = "local"
"""The address of a cluster that is started here."""

MEMORY = "memory"
"""What workers call the bytes that their tasks may take together: ``--resources memory=64e9``."""

# Beyond that, the dump is what ends workers.
_RETRIES = 3
_LEAST_AHEAD = 64
_TICK = 0.5
_CONNECT = 30
# A scheduler may be started again.
_PATIENCE = 600.0
_SECONDS_BETWEEN = 1.0


class ClusterError(Exception):
    """There is no such cluster, or it cannot do this; the message says what to do."""


@dataclass(frozen=True)
class Cluster:
    """
    A cluster that waits for dumps.

    :ivar ahead: How many dumps to give it at a time, so that no worker waits.
    :ivar dashboard: Where to watch it.
    """

    engine: Engine
    ahead: int
    dashboard: str


def versions_here() -> tuple[str, ...]:
    """Get the versions of what answers."""
    return version("drgn-zonedev"), version("drgn")


@contextlib.contextmanager
def connected_cluster(address: str, jobs: int, limits: Limits) -> Iterator[Cluster]:
    """
    Connect to a cluster.

    :param address: Of its scheduler, or :data:`LOCAL`.
    :param jobs: How many workers a local one has.
    :raises ClusterError: if there is none, or no worker has the memory for a task
    """
    try:
        import distributed
    except ImportError as e:
        raise ClusterError("--dask needs distributed: pip install 'drgn-zonedev[fleet]'") from e
    # What it says of workers that come and go is on its dashboard.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    client_of: Any = distributed.Client
    with contextlib.ExitStack() as stack:
        where: Any = address
        if address == LOCAL:
            where = stack.enter_context(_local_cluster(jobs, limits))
        try:
            client = stack.enter_context(client_of(where, timeout=_CONNECT))
        except (OSError, ValueError) as e:
            raise ClusterError(f"no Dask scheduler answers at {address}: {e}") from e
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        resources = _resources([w.get("resources", {}) for w in workers], limits)
        threads = sum(w["nthreads"] for w in workers)
        engine = _engine(client, resources)
        yield Cluster(engine, max(_LEAST_AHEAD, 2 * threads), client.dashboard_link)


def _local_cluster(jobs: int, limits: Limits) -> Any:
    import distributed

    local_cluster: Any = distributed.LocalCluster
    # Each check has a limit of its own.
    return local_cluster(
        n_workers=jobs,
        threads_per_worker=1,
        memory_limit=0,
        resources={MEMORY: limits.memory},
        silence_logs=logging.CRITICAL,
    )


def _resources(offers: list[dict[str, float]], limits: Limits) -> dict[str, float]:
    offered = [offer[MEMORY] for offer in offers if MEMORY in offer]
    if not offered or not limits.memory:
        # No worker counts its memory.
        return {}
    if max(offered) < limits.memory:
        raise ClusterError(
            f"no worker offers {limits.memory} bytes of memory for a dump: lower --memory, or "
            f"start workers with --resources {MEMORY}=BYTES"
        )
    return {MEMORY: limits.memory}


def _check_on_worker(task: Task, versions: tuple[str, ...]) -> Checked:
    if versions_here() != versions:
        here, there = " ".join(versions_here()), " ".join(versions)
        raise ClusterError(
            f"a worker has versions {here}, and the client {there}: install the same"
        )
    return check_alone(task)


def _engine(client: Any, resources: dict[str, float]) -> Engine:
    def check(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return _result(client, resources, task, is_stopping)
            except _lost() as e:
                # The scheduler has gone, and what it knew with it.
                if time.monotonic() > end:
                    raise ClusterError(f"the Dask scheduler does not come back: {e}") from e
            if is_stopping():
                raise StoppedError
            time.sleep(_SECONDS_BETWEEN)

    return check


def _lost() -> tuple[type[BaseException], ...]:
    import asyncio
    import concurrent.futures

    return OSError, asyncio.CancelledError, concurrent.futures.CancelledError


def _result(
    client: Any, resources: dict[str, float], task: Task, is_stopping: Callable[[], bool]
) -> Checked:
    import distributed

    future = client.submit(
        _check_on_worker,
        task,
        versions_here(),
        pure=False,
        retries=_RETRIES,
        resources=resources or None,
    )
    while True:
        try:
            result: Checked = future.result(timeout=_TICK)
            return result
        except distributed.TimeoutError:
            if is_stopping():
                future.cancel()
                raise StoppedError from None
        except distributed.KilledWorker:
            return Checked(Ending.CRASHED, "it ended the workers that checked it", None, 0, 0)
