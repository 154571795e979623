# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Running a Survey
----------------

Checks every dump that is not known yet, many at a time, and keeps the results. Threads of this
process only wait for the checks, each of which is a process of its own; this process alone
writes the store.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Callable

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits, Task
from drgn_zonedev.fleet.dumped_kernel import dumped_kernel
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.fleet.sameness import content_hash, quick_key
from drgn_zonedev.fleet.store import DumpRecord, Store
from drgn_zonedev.render.as_json import render
from drgn_zonedev.vmcore.vmcoreinfo_words import UNNAMED

__all__ = ("Engine", "StoppedError", "SurveyQuestion", "run")

Engine = Callable[[Task, Callable[[], bool]], Checked]
"""
Checks a dump, and returns when that is done. The second argument returns true when the result is
not needed any more.
"""

# Dumps per job that are handed out, so that no job waits while the store is written.
_AHEAD = 2


@dataclass(frozen=True)
class SurveyQuestion:
    """
    What is asked of every dump.

    :ivar arguments: Of ``zonedev``, before the command.
    :ivar options: Of ``check``.
    :ivar versions: Of the programs that answer.
    """

    arguments: tuple[str, ...]
    options: tuple[str, ...]
    versions: tuple[str, ...]
    limits: Limits

    @property
    def key(self) -> str:
        """What an answer depends on besides the dump, as JSON. Limits are not part of it."""
        return json.dumps([self.arguments, self.options, self.versions])


class StoppedError(Exception):
    """The survey is stopping, and drops this result."""


def run(
    dumps: Iterable[Found],
    store: Store,
    question: SurveyQuestion,
    engine: Engine,
    jobs: int,
    progress: Callable[[Found, Checked | None], None],
) -> int:
    """
    Check dumps, and keep the results.

    :param engine: What checks one dump.
    :param jobs: How many at a time.
    :param progress: Called with each dump and its result; without one, if it was known.
    :return: The number of the run.
    """
    number = store.begin_run(question.key)
    for found, entry in _answers(dumps, store, question, engine, jobs):
        if entry is None:
            store.see(found, number)
        else:
            store.put(entry, number)
        progress(found, entry.checked if entry else None)
    store.end_run(number)
    return number


_Answer = tuple[Found, "DumpRecord | None"]


def _answers(
    dumps: Iterable[Found], store: Store, question: SurveyQuestion, engine: Engine, jobs: int
) -> Iterator[_Answer]:
    stopping = threading.Event()
    waiting: set[Future[_Answer]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for found in dumps:
                waiting.add(pool.submit(_answer, found, store, question, engine, stopping))
                while len(waiting) >= _AHEAD * jobs:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            # Running checks end within a moment, and no other begins.
            stopping.set()


def _answer(
    found: Found, store: Store, question: SurveyQuestion, engine: Engine, stopping: threading.Event
) -> _Answer:
    if stopping.is_set():
        raise StoppedError
    try:
        key = quick_key(found.path)
    except OSError as e:
        return found, _gone(found, question, e)
    if store.knows(found, key, question.key, question.limits):
        return found, None
    try:
        content, kernel = content_hash(found.path), dumped_kernel(found)
    except OSError as e:
        return found, _gone(found, question, e)
    same = store.same_content(content, question.key) if content else None
    if same:
        number, checked = same[0], _of_copy(same[1], found.path)
    else:
        task = Task(found.path, question.arguments, question.options, question.limits)
        number, checked = None, engine(task, stopping.is_set)
    if stopping.is_set():
        raise StoppedError
    entry = DumpRecord(found, key, content, kernel, question.key, question.limits, checked, number)
    return found, entry


def _of_copy(checked: Checked, path: str) -> Checked:
    # Only the source in the report differs.
    document = json.loads(checked.report or b"{}")
    if "provenance" not in document:
        return checked
    document["provenance"]["source"] = path
    return replace(checked, report=f"{render(document)}\n".encode())


def _gone(found: Found, question: SurveyQuestion, e: OSError) -> DumpRecord:
    checked = Checked(Ending.CHANGED, f"it cannot be read: {e.strerror or e}", None, 0, 0)
    return DumpRecord(found, "", None, UNNAMED, question.key, question.limits, checked)
