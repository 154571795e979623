# SPDX-License-Identifier: LGPL-2.1-or-later

"""``python -m drgn_zonedev`` is ``zonedev``."""

import contextlib
import gc
import os
import resource
import sys

from drgn_zonedev.util.signals import cleaning_up, nothing_to_clean_up

# Without memory for a thread, OpenBLAS and libgomp end the process, with the status that
# means findings.
_ROOM_FOR_THREADS, _ROOM_FOR_NUMPY = 8 << 30, 112 << 20

# Python's 700 looks for cycles hundreds of times while modules are imported, and finds none.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def run() -> int:
    """Run the command line in a process of its own; returns the exit status."""
    # The rest takes a third of a second to be imported.
    nothing_to_clean_up()
    _use_few_threads()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from drgn_zonedev.shell.cli import main

        _require_room_for_numpy()
        with cleaning_up():
            return main()
    except KeyboardInterrupt:
        return 130
    except (ImportError, MemoryError, OSError) as e:
        # What could not be loaded says so in many lines.
        why = str(e.__cause__ or e).partition("\n")[0]
        return _cannot_start(why or "out of memory")
    finally:
        # When Python ends, it looks for cycles in whatever is not frozen, several times.
        gc.freeze()


def _use_few_threads() -> None:
    # Nothing here is linear algebra.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    room = min(_room(resource.RLIMIT_AS), _room(resource.RLIMIT_DATA))
    if room < _ROOM_FOR_THREADS:
        # drgn has the cores index symbols.
        os.environ["OMP_NUM_THREADS"] = "1"


def _require_room_for_numpy() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    if soft != resource.RLIM_INFINITY and soft - used < _ROOM_FOR_NUMPY:
        raise MemoryError(f"{soft >> 20} MiB of memory is not enough")


def _room(limit: int) -> int:
    soft, _ = resource.getrlimit(limit)
    return _ROOM_FOR_THREADS if soft == resource.RLIM_INFINITY else soft


def _cannot_start(why: str) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"zonedev: error: cannot start: {why}: see ulimit -a\n")
    return 3


if __name__ == "__main__":
    sys.exit(run())
