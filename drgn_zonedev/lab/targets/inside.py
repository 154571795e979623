# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Run the tool inside the guest, on the guest's own /proc/kcore.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path

import drgn_zonedev
from drgn_zonedev.lab.host.errors import StepProgress, report
from drgn_zonedev.lab.kernels.known import Kernel, cache_dir, made_once
from drgn_zonedev.lab.machine.boot import Guest, boot
from drgn_zonedev.lab.scenarios import Scenario
from drgn_zonedev.lab.targets.image import disk_device, file_image, make_image
from drgn_zonedev.lab.targets.interpreter import (
    ENVIRONMENT,
    PROGRAM,
    interpreter_digest,
    pack_interpreter,
)

__all__ = ("INSIDE_SECONDS", "boot_inside", "boot_inside_alone", "boot_observed", "python_image")

# A quarter of a minute on an idle host.
INSIDE_SECONDS = 300
# The observer checks once before the steps begin; on a busy host, that takes minutes.
_OBSERVER_TIMEOUT = 600
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_CHECK = ("check", "--format", "json")


def python_image(progress: StepProgress = None) -> Path:
    """Return the disk from which guests run Python, making it if it is not in the cache."""
    image = cache_dir() / "programs" / f"python-{interpreter_digest()}.img"

    def make(work: Path) -> None:
        report(progress, "packing Python for guests")
        pack_interpreter(work / "tree")
        make_image(work / "tree", work / "python.img")
        image.parent.mkdir(parents=True, exist_ok=True)
        (work / "python.img").replace(image)

    return made_once(image, make, progress)


def boot_inside(
    kernel: Kernel, scenario: Scenario, progress: StepProgress = None
) -> AbstractContextManager[Guest]:
    """
    Boot a guest that has run ``zonedev -k check``, and is still in the same state.

    ``guest.facts["inside"]`` is what that printed, ``["inside_errors"]`` what it said on standard
    error, and ``["inside_status"]`` its exit status.
    """
    words = ("-m", "drgn_zonedev", "-k", "-s", "/extra/vmlinux", *_CHECK)
    return _boot_with_python(kernel, scenario, "inspect", words, (kernel.vmlinux,), progress)


def boot_inside_alone(
    kernel: Kernel, scenario: Scenario, progress: StepProgress = None
) -> AbstractContextManager[Guest]:
    """
    Like :func:`boot_inside()`, in a guest that has nothing but the kernel, Python and ours:
    no debugging symbols.
    """
    words = ("-m", "drgn_zonedev", "-k", *_CHECK)
    return _boot_with_python(kernel, scenario, "inspect", words, (), progress)


def boot_observed(
    kernel: Kernel, scenario: Scenario, words: Sequence[str], progress: StepProgress = None
) -> AbstractContextManager[Guest]:
    """Boot a guest that also runs Python with these arguments, with output on its console."""
    return _boot_with_python(kernel, scenario, "observe", words, (kernel.vmlinux,), progress)


@contextmanager
def _boot_with_python(
    kernel: Kernel,
    scenario: Scenario,
    step: str,
    words: Sequence[str],
    files: Sequence[Path],
    progress: StepProgress,
) -> Iterator[Guest]:
    # On the file system of the kernels, so that their symbols can be linked to.
    with tempfile.TemporaryDirectory(prefix="inside-", dir=cache_dir()) as directory:
        work = Path(directory)
        ours = (Path(drgn_zonedev.__file__).parent, _metadata(work))
        file_image([*files, *ours], work / "extra.img")
        images = (python_image(progress), work / "extra.img")
        disks = [disk_device(image, readonly=True) for image in images]
        longer = _with_python(scenario, disks, step, words)
        timeout = _OBSERVER_TIMEOUT if step == "observe" else INSIDE_SECONDS
        with boot(kernel, longer, timeout=timeout, attempts=1, progress=progress) as guest:
            yield guest


def _metadata(work: Path) -> Path:
    # What "zonedev --version" looks for; that of an editable installation would lead to the host.
    directory = work / "drgn_zonedev.dist-info"
    directory.mkdir()
    text = f"Metadata-Version: 2.1\nName: drgn-zonedev\nVersion: {version('drgn-zonedev')}\n"
    (directory / "METADATA").write_text(text)
    return directory


def _with_python(
    scenario: Scenario, disks: list[tuple[str, ...]], step: str, words: Sequence[str]
) -> Scenario:
    environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    command = (step, *environment, PROGRAM, *words)
    # The observer must start before the steps.
    steps = (command, *scenario.steps) if step == "observe" else (*scenario.steps, command)
    return dataclasses.replace(
        scenario,
        cx16=True,
        devices=(*scenario.devices, *(word for disk in disks for word in disk)),
        modules=(*scenario.modules, *_MODULES),
        steps=steps,
    )
