# SPDX-License-Identifier: LGPL-2.1-or-later

"""A Dask cluster on this machine: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cellar import check_of, copy_stored, let_dumps_misbehave

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits, Task
from drgn_zonedev.fleet.cluster import Cluster, ClusterError, connected_cluster
from drgn_zonedev.shell import cli

distributed = pytest.importorskip(
    "distributed", reason="needs distributed: pip install 'drgn-zonedev[fleet]'"
)

LIMITS = Limits(60, 1 << 30)


class Machines:
    """What a cluster is made of."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *options]
        process = subprocess.Popen(
            command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def worker(self, memory: int = 2 << 30) -> subprocess.Popen[bytes]:
        return self._start(
            "worker", self.address, "--no-nanny", "--nthreads", "1", "--memory-limit", "0",
            "--host", "127.0.0.1", "--resources", f"memory={memory}", "--death-timeout", "60",
        )  # fmt: skip

    def wait_for(self, workers: int) -> None:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                with distributed.Client(self.address, timeout=30) as client:
                    client.wait_for_workers(workers, timeout=60)
                return
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with contextlib.ExitStack() as stack:
        yield Machines(stack, tmp_path)


def check(cluster: Cluster, path: Path) -> Checked:
    return cluster.engine(Task(str(path), (), (), LIMITS), lambda: False)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_worker_that_is_killed_costs_no_answer(machines: Machines, tmp_path: Path) -> None:
    machines.scheduler()
    workers = [machines.worker() for _ in range(3)]
    machines.wait_for(3)
    names = ("empty", "ghost", "orphan", "teardown", "devdax-2m", "dirty-media")
    paths = [copy_stored(f"6.1-{name}", tmp_path / "c" / f"{name}.tar.xz") for name in names]
    found: dict[Path, list[Checked]] = {path: [] for path in paths}
    with connected_cluster(machines.address, 1, LIMITS) as cluster:

        def work(path: Path) -> None:
            found[path].append(check(cluster, path))

        threads = [in_background(lambda path=path: work(path)) for path in paths]  # type: ignore[misc]
        while not any(found.values()):
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(120)
    assert [len(results) for results in found.values()] == [1] * len(paths)
    for path in paths[:2]:
        assert (found[path][0].report or b"").rstrip(b"\n") == check_of(path).report
    assert {results[0].ending for results in found.values()} == {Ending.JUDGED}


def test_scheduler_that_is_started_again_is_asked_again(machines: Machines, tmp_path: Path) -> None:
    scheduler = machines.scheduler()
    first = machines.worker()
    machines.wait_for(1)
    path = copy_stored("6.1-ghost", tmp_path / "d.tar.xz")
    found: list[Checked] = []
    with connected_cluster(machines.address, 1, LIMITS) as cluster:
        os.kill(first.pid, signal.SIGSTOP)
        thread = in_background(lambda: found.append(check(cluster, path)))
        time.sleep(1)
        scheduler.kill()
        scheduler.wait()
        first.kill()
        machines.scheduler()
        machines.worker()
        thread.join(120)
    assert [result.ending for result in found] == [Ending.JUDGED]


def test_survey_by_a_cluster_is_a_survey(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    let_dumps_misbehave(tmp_path / "site", monkeypatch)
    machines.scheduler()
    machines.worker()
    machines.wait_for(1)
    copy_stored("6.1-ghost", tmp_path / "c" / "ghost.tar.xz")
    copy_stored("6.1-empty", tmp_path / "c" / "crash-1.tar.xz")
    words = ["survey", str(tmp_path / "c"), "--store", str(tmp_path / "s.db")]
    assert cli.main([*words, "--dask", machines.address, "--memory", "1G"]) == 3
    out = capsys.readouterr().out
    assert "2 dumps, 1 judged" in out
    assert "SIGSEGV ended it" in out


def test_memory_that_no_worker_has_is_refused(machines: Machines) -> None:
    machines.scheduler()
    machines.worker(memory=1 << 20)
    machines.wait_for(1)
    refused = pytest.raises(ClusterError, match="no worker offers")
    with refused, connected_cluster(machines.address, 1, LIMITS):
        pass


def test_scheduler_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("drgn_zonedev.fleet.cluster._CONNECT", 1)
    path = copy_stored("6.1-empty", tmp_path / "d.tar.xz")
    words = ["survey", str(path), "--store", str(tmp_path / "s.db"), "--dask", "tcp://127.0.0.1:1"]
    assert cli.main(words) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "s.db").exists()
