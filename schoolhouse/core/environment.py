"""The code, the libraries and the hardware that a number depends on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from pydantic import BaseModel


PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy"),
    "math-verify",
)


class GitState(BaseModel):
    """Commit of this project's repository; `dirty` if tracked files differ from it."""

    revision: str
    dirty: bool


class Hardware(BaseModel):
    """
    Machine that a run ran on.

    Args:
        machine: Architecture.
        cores: CPU cores.
        threads: Threads of torch on a CPU; they change the last bits of a sum.
        accelerators: Names of the GPUs, or `mps`.
        processes: Training processes.
    """

    system: str
    machine: str
    cores: int | None
    threads: int
    accelerators: list[str]
    processes: int


def git_state() -> GitState | None:
    """
    Return the revision of this project; `None` outside a checkout, also where the package is installed inside another
    project's checkout.
    """
    here = Path(__file__)

    def git(*command: str) -> str:
        line = ["git", "-C", str(here.parent), *command]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return GitState(
            revision=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on, without those not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(processes: int) -> Hardware:
    """Return the hardware of this machine, on which that number of processes trains."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Hardware(
        system=platform.platform(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        accelerators=gpus or (["mps"] if torch.backends.mps.is_available() else []),
        processes=processes,
    )
