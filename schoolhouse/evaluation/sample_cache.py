"""Completions on disk, so that none is generated twice: an append-only file of JSON lines."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schoolhouse.core.generation import Sample


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleKey:
    """
    Everything that a completion depends on. Samples with equal keys are interchangeable, all others are not.

    Args:
        model (`str`), adapter (`str` or `None`):
            Hashes; `None` for the bare base.
        prompt (`str`):
            Hash of the token ids that the model read, so of the rendered prompt and the tokenizer.
        sampling (`str`):
            Sampling parameters, stop tokens and dtype as canonical JSON.
        seed (`int`):
            Seed of the run; 0 for greedy decoding, which has none.
        index (`int`):
            Number of the sample among those of the same prompt.
    """

    model: str
    adapter: str | None
    prompt: str
    sampling: str
    seed: int
    index: int


class SampleCache:
    """
    Samples on disk: one line each, with its key in plain fields, appended and never rewritten.

    Each batch is one `write` to a file opened for appending, followed by a sync, so that a kill costs at most the
    batch in progress and two processes can write to one file. A line cut off by a crash or a full disk is ended by the
    next writer, skipped by readers and named in `damaged`; its sample is generated again. The file and its folder are
    created with the first sample.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.damaged: list[int] = []  # line numbers, from 1
        self._samples: dict[SampleKey, Sample] = {}
        for number, line in enumerate(self.path.read_bytes().split(b"\n") if self.path.exists() else (), start=1):
            if not line.strip():
                continue
            try:
                key, sample = _parse(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.damaged.append(number)
            else:
                self._samples.setdefault(key, sample)
        if self.damaged:
            logger.warning(f"{self.path}: skipped {len(self.damaged)} damaged lines, the first is {self.damaged[0]}")

    def __len__(self) -> int:
        return len(self._samples)

    def get(self, key: SampleKey) -> Sample | None:
        """Return a sample, or `None` where it has not been drawn."""
        return self._samples.get(key)

    def add(self, samples: Iterable[tuple[SampleKey, Sample]]) -> None:
        """
        Append the samples that are not in the cache as one batch, and wait until it is on the disk.

        An `OSError` says that the disk did not take the whole batch.
        """
        fresh = {key: sample for key, sample in samples if key not in self._samples}
        lines = "".join(json.dumps(asdict(key) | asdict(sample)) + "\n" for key, sample in fresh.items()).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            if os.write(file, lines) != len(lines):
                raise OSError(f"{self.path}: the disk took only part of a batch; free some space and run again")
            os.fsync(file)
        finally:
            os.close(file)
        self._samples |= fresh


def sampling_json(parameters: dict[str, Any]) -> str:
    """Return sampling parameters in the form that keys hold: JSON with sorted keys."""
    return json.dumps(parameters, sort_keys=True)


def prompt_hash(token_ids: list[int]) -> str:
    """Return the SHA-256 of a prompt's token ids, which is the prompt as the model reads it."""
    return hashlib.sha256(json.dumps(token_ids).encode()).hexdigest()


def _parse(line: bytes) -> tuple[SampleKey, Sample]:
    fields = json.loads(line)
    key = SampleKey(**{name: fields.pop(name) for name in SampleKey.__dataclass_fields__})
    sample = Sample(**fields)
    if not (isinstance(sample.text, str) and isinstance(sample.tokens, int) and isinstance(key.index, int)):
        raise ValueError("a field has the wrong type")
    return key, sample
