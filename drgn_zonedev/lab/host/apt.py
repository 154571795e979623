# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Run apt with a configuration of its own, on the mirror that the machine's apt names.

Nothing is installed and no root is needed.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool

__all__ = (
    "Apt",
    "Mirror",
    "Package",
    "Suite",
    "find_mirror",
    "parse_mirror",
    "parse_packages",
    "private_apt",
    "sources_list",
)

_KEYRINGS = tuple(
    Path("/usr/share/keyrings") / f"debian-archive-keyring.{suffix}" for suffix in ("pgp", "gpg")
)
_DEBIAN_SUITE = re.compile(
    r"(oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky)"
    r"([-/].*)?"
)
_INDEX_FIELDS = ("REPO_URI", "RELEASE", "ORIGIN", "SIGNED_BY")
_UPDATE_SECONDS = 300
_DOWNLOAD_SECONDS = 3600


@dataclass(frozen=True)
class Suite:
    """The Debian suite that carries a kernel."""

    codename: str
    security: bool = False
    """Newer builds are in the suite's security archive, which has its own URI."""
    architecture: str = "amd64"
    """Debian's name of the architecture that packages are for."""
    flavour: str = "cloud-amd64"
    """Of the kernel: how Debian configures it."""


@dataclass(frozen=True)
class Mirror:
    """Where the machine's own apt gets Debian from."""

    archive: str
    security: str | None
    signed_by: str | None


@dataclass(frozen=True)
class Package:
    """The fields of ``apt-cache show`` that are needed here."""

    name: str
    version: str
    size: int
    depends: tuple[str, ...]
    """Names only: alternatives are flattened, version restrictions are dropped."""


def _run(command: list[str], cwd: Path | None = None, timeout: float = 60) -> str:
    """Run an apt program; its last error line becomes the LabError."""
    program = os.path.basename(command[0])
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise LabError(f"{program} did not finish within {timeout:.0f} s: check the network") from e
    if done.returncode:
        raise LabError(f"{program} failed: {_first_complaint(done.stderr)}")
    return done.stdout


def _first_complaint(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith(("E:", "Err", "W:"))]
    lines.sort(key=lambda line: line.startswith("W:"))
    return lines[0] if lines else stderr.strip() or "no message"


def parse_mirror(index_targets: str) -> Mirror | None:
    """Find the Debian mirror in ``apt-get indextargets`` output (format: _INDEX_FIELDS, tabs)."""
    archive = security = signed_by = None
    for line in index_targets.splitlines():
        # A field that apt does not know is printed as $(FIELD).
        fields = ["" if field.startswith("$(") else field for field in line.split("\t")]
        if len(fields) != len(_INDEX_FIELDS):
            continue
        uri, release, origin, key = fields
        # ORIGIN is known only after apt-get update; until then the suite's name must do.
        if origin != "Debian" and (origin or not _DEBIAN_SUITE.fullmatch(release)):
            continue
        if uri.startswith("cdrom:"):
            continue
        if re.search(r"-security|/updates", release):
            security = security or uri
        elif archive is None:
            archive = uri
            signed_by = key if key.startswith("/") else None
    return Mirror(archive, security, signed_by) if archive else None


def find_mirror() -> Mirror:
    """Ask the machine's apt which Debian mirror it uses."""
    line = "\t".join(f"$({field})" for field in _INDEX_FIELDS)
    output = _run([find_tool("apt-get"), "indextargets", "--format", line, "Created-By: Packages"])
    mirror = parse_mirror(output)
    if mirror is None:
        raise LabError("apt names no Debian mirror: add one to /etc/apt/sources.list")
    return mirror


def sources_list(suite: Suite, mirror: Mirror, keyring: str | None) -> str:
    """Return the sources.list that offers the kernel packages of `suite` and nothing else."""
    option = f"[signed-by={keyring}] " if keyring else ""
    lines = [f"deb {option}{mirror.archive} {suite.codename} main"]
    if suite.security and mirror.security:
        lines.append(f"deb {option}{mirror.security} {suite.codename}-security main")
    return "\n".join(lines) + "\n"


def _apt_conf(directory: Path, architecture: str) -> str:
    # The machine's own apt configuration is read first, so that its proxy settings count; its hooks
    # are for the machine's package database and are dropped.
    return f"""\
Dir::Etc::SourceList "{directory}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{directory}/state";
Dir::State::Lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""


def parse_packages(show: str) -> dict[str, Package]:
    """Parse the stanzas of ``apt-cache show``; of several versions, the first is used."""
    packages: dict[str, Package] = {}
    for stanza in re.split(r"\n\s*\n", show.strip()):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, re.MULTILINE))
        if "Package" not in fields:
            continue
        package = Package(
            name=fields["Package"],
            version=fields["Version"],
            size=int(fields.get("Size", "0")),
            depends=tuple(
                alternative.split()[0].partition(":")[0]
                for alternative in re.split(r"[,|]", fields.get("Depends", ""))
                if alternative.strip()
            ),
        )
        packages.setdefault(package.name, package)
    return packages


@dataclass(frozen=True)
class Apt:
    """An apt that knows one kernel's suite and uses only its own directory."""

    directory: Path

    def update(self) -> None:
        """Update the package lists from the mirror."""
        self._run("apt-get", "update", timeout=_UPDATE_SECONDS)

    def show(self, *names: str) -> dict[str, Package]:
        """Return the newest version of each of the packages."""
        packages = parse_packages(self._run("apt-cache", "show", "--no-all-versions", *names))
        for name in names:
            if name not in packages:
                raise LabError(f"the mirror has no package {name}")
        return packages

    def download(self, package: Package, directory: Path) -> Path:
        """Download a package into a new directory and return its file; apt checks its hash."""
        directory.mkdir()
        wanted = f"{package.name}={package.version}"
        self._run("apt-get", "download", wanted, cwd=directory, timeout=_DOWNLOAD_SECONDS)
        found = list(directory.glob("*.deb"))
        if len(found) != 1:
            raise LabError(f"apt-get download left no {package.name}: try again")
        return found[0]

    def _run(
        self, program: str, *arguments: str, cwd: Path | None = None, timeout: float = 60
    ) -> str:
        command = [find_tool(program), "-q", "-c", str(self.directory / "apt.conf"), *arguments]
        return _run(command, cwd, timeout)


def private_apt(directory: Path, suite: Suite, mirror: Mirror) -> Apt:
    """Set up an apt for `suite` in a new directory."""
    keyring = next((str(path) for path in _KEYRINGS if path.exists()), mirror.signed_by)
    for name in ("state", "lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    (directory / "sources.list").write_text(sources_list(suite, mirror, keyring))
    (directory / "apt.conf").write_text(_apt_conf(directory, suite.architecture))
    return Apt(directory)
