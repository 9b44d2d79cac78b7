"""The files by which the stages of a pipeline know each other: `run.json` of a run folder, and `pipeline.json`."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from schoolhouse.core.environment import GitState, Hardware
from schoolhouse.core.files import parse_json


SCHEMA = 2
RUN_FILE, PIPELINE_FILE = "run.json", "pipeline.json"

_REPEAT = "delete that file and run the same command again"

Status = Literal["running", "interrupted", "done", "failed"]


def _to_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


# Values of libraries and of users' functions. A run of hours must not fail at its end because one of them is no JSON.
JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(_to_json)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ModelSource(_Record):
    """A base model: the name that the user gave it, its revision on the Hub, and its content."""

    name: str
    revision: str | None = None
    hash: str


class AdapterSource(_Record):
    """An adapter or a reward model: the name that the user gave it, and its content."""

    name: str
    hash: str


class Overlap(BaseModel):
    """
    Overlap of training prompts with one eval set.

    Args:
        train_rows: Training rows that overlap an item of the eval set.
        train_share: Their share of all training rows.
        train_ids: Their indices; not stored.
        eval_rows: Items of the eval set that a training row overlaps.
        eval_share: Their share of all items.
        eval_ids: Their indices; not stored. The other items are the uncontaminated ones.
    """

    train_rows: int
    train_share: float
    train_ids: list[int] = Field(default=[], exclude=True)
    eval_rows: int
    eval_share: float
    eval_ids: list[int] = Field(default=[], exclude=True)


class DataSource(BaseModel):
    """
    One data set in one split.

    Args:
        name: Name of the data set, as the recipe has it.
        location: Path, Hub id or address that was read; `"generated"` where a function made the rows.
        hub_id: Hub id of the data set, also where a local copy was read.
        config: Configuration on the Hub.
        revision: Commit on the Hub, or the revision that was asked for.
        kind: Key of [`schoolhouse.data.columns.KINDS`].
        rows: Rows that were read, without malformed and dropped ones.
        used_rows: Rows that are in the mixture.
        weight: Weight in the mixture.
        malformed: Rows left out as malformed.
        malformed_rows: `"file:line: reason"` for the first of them.
        sha256: Hash of the rows' content and order.
        license: SPDX identifier.
        exact_duplicates: Training rows that repeat an earlier one.
        overlap: Name of an eval set -> what the training prompts share with it.
        dropped_overlap: Training rows left out by `drop_overlap`.
    """

    role: Literal["train", "test"]
    name: str
    location: str
    hub_id: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str
    kind: str
    rows: int
    used_rows: int
    weight: float | None = None
    malformed: int = 0
    malformed_rows: list[str] = []
    sha256: str
    license: str | None = None
    exact_duplicates: int | None = None
    overlap: dict[str, Overlap] | None = None
    dropped_overlap: int | None = None


class Resumption(_Record):
    """
    Time of a resumption, and the checkpoint that it began from.

    Args:
        length: `max_steps` or `num_train_epochs` before, where the run was made longer or shorter.
    """

    at: str
    checkpoint: str
    length: JsonObject | None = None


class Best(_Record):
    """Best value of the metric that selects checkpoints, and its step."""

    metric: float
    step: int | None


class Fingerprints(BaseModel):
    """
    Hashes of everything that decides a stage's product, apart from library versions and commits of Hub data sets.

    Args:
        settings: The recipe's script and settings, without those that only say where the run lies.
        files: Every file or folder that the settings name: data, reward functions, chat templates, adapters.
        code: The script and all files of the package that it may run.
        base: Base model.
        parents: Run folders beside this one that the settings name -> hash of their product.
        launch: File of `accelerate launch` with which a pipeline started the run; `None` where no pipeline did.
    """

    settings: str
    files: str
    code: str
    base: str | None
    parents: dict[str, str | None]
    launch: str | None

    def changed(self, other: "Fingerprints") -> list[str]:
        """Return the names of the parts that differ."""
        return [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]


class Evaluation(_Record):
    """
    An evaluation of a run's product.

    Args:
        folder: Folder of its results, from the run folder.
        fingerprint: Hash of everything that decides the results, by
            [`schoolhouse.core.fingerprint.evaluation_fingerprint`].
        reason: Cause of a failure or a stop.
        results_hash: Hash of results and samples, by [`schoolhouse.core.run.results_hash`].
    """

    folder: str
    tasks: list[str]
    fingerprint: str
    status: Status
    reason: str | None = None
    seconds: float = 0.0
    results_hash: str | None = None


class RunManifest(_Record):
    """
    Content of `run.json`: what was run, on what, with what result. Recipes write it, evaluations append to it, and
    everything else reads it.

    Args:
        reason: Cause of a failure or a stop.
        recipe: Name of the script, `sft`; `base` for the untrained model of a pipeline.
        config: Every setting of the recipe.
        model, parent_adapter: Base model, and the adapter that was trained further.
        reward_models: Models among the rewards.
        chat_template: Its hash.
        fingerprints: Hashes that decide whether the product is stale.
        seconds: Duration, added up over resumptions.
        peak_bytes: Largest resident memory of a process.
        product, product_hash: Folder of the trained weights, and the hash of its content.
        metrics: Last logged values.
        sandbox: Layers of isolation on and off, where a reward ran programs.
        evaluations: Evaluations of the product.
    """

    schema_: Literal[2] = Field(default=2, alias="schema")
    status: Status
    reason: str | None = None
    recipe: str
    command: list[str] = []
    config: JsonObject = {}
    seeds: dict[str, int | None] = {}
    model: ModelSource | None = None
    parent_adapter: AdapterSource | None = None
    reward_models: list[AdapterSource] = []
    chat_template: str | None = None
    data: list[DataSource] = []
    fingerprints: Fingerprints | None = None
    git: GitState | None = None
    versions: dict[str, str] = {}
    hardware: Hardware | None = None
    started: str | None = None
    ended: str | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    resumed: list[Resumption] = []
    steps: int | None = None
    epochs: float | None = None
    product: Literal["adapter", "members", "model"] | None = None
    product_hash: str | None = None
    metrics: JsonObject = {}
    sandbox: dict[str, bool] | None = None
    best: Best | None = None
    tokens: dict[str, int] | None = None
    dropped_rows: int | None = None
    pairs: JsonObject | None = None
    test_pairs: JsonObject | None = None
    preflight: JsonObject | None = None
    final_evaluation: JsonObject | None = None
    evaluations: list[Evaluation] = []

    def evaluation(self, folder: str) -> Evaluation | None:
        """Return the evaluation in a folder of the run folder."""
        return next((entry for entry in self.evaluations if entry.folder == folder), None)


class PipelineStage(_Record):
    """
    A stage as `pipeline.json` lists it.

    Args:
        recipe, config: Script and file; `None` for the base model.
        parent: Stage whose adapter it continues.
        folder: Run folder.
        eval: Folder of its results, where they are those of the present product.
        status: `None` for a stage that is to be trained.
    """

    name: str
    recipe: str | None
    config: str | None
    parent: str | None
    folder: str
    eval: str | None
    status: Status | None


class PipelineIndex(_Record):
    """Content of `pipeline.json`: the stages of a pipeline in order, and where they lie."""

    schema_: Literal[2] = Field(default=2, alias="schema")
    name: str
    base: ModelSource
    stages: list[PipelineStage]
    report: str | None = None  # fingerprint with which the report was written last


def read_manifest(folder: str | Path) -> RunManifest:
    """
    Read the manifest of a run folder; those of the first version are read as well.

    Raises:
        `ValueError`: one line that names the file, and says what is wrong with it and what to do.
    """
    path = Path(folder) / RUN_FILE
    values = _read_json(path, "name the output_dir of a recipe")
    if values.get("schema") == 1:
        try:
            values = _from_schema_1(values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): {_REPEAT}") from None
    return _validate(path, values, RunManifest)


def read_pipeline_index(path: str | Path) -> PipelineIndex:
    """
    Read `pipeline.json`, given the file or the folder that holds it. Errors are those of [`read_manifest`].

    The file names folders as seen from its own, so that a pipeline may be moved or copied; those returned are whole.
    """
    path = Path(path)
    path = path / PIPELINE_FILE if path.is_dir() else path
    if not path.exists() and (path.parent / "course.json").is_file():
        raise ValueError(
            f"{path.parent} holds a pipeline of the first version (course.json), which is not read: run it again with "
            "another --output_dir; its run folders and results can be named one by one"
        )
    index = _validate(path, _read_json(path, "run recipes/pipeline.py first"), PipelineIndex)
    for stage in index.stages:
        stage.folder = str(path.parent / stage.folder)
        stage.eval = stage.eval and str(path.parent / stage.eval)
    return index


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes(), finite=True)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {advice}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_REPEAT}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged (no JSON object): {_REPEAT}")
    return values


_RecordType = TypeVar("_RecordType", bound=_Record)


def _validate(path: Path, values: dict[str, Any], record: type[_RecordType]) -> _RecordType:
    if values.get("schema") != SCHEMA:
        found = str(values.get("schema", "none"))[:60]
        raise ValueError(f"{path} has schema {found}, this version reads {SCHEMA}: {_REPEAT}")
    try:
        return record.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}: {_REPEAT}") from None


def _from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    status = {"finished": "done"}.get(values.get("status", ""), values.get("status"))
    resumed = [{"at": entry["at"], "checkpoint": entry["from"]} for entry in values.get("resumed", [])]
    recipe = Path((values.get("command") or ["unknown"])[0]).stem
    values = values | {"schema": SCHEMA, "status": status, "recipe": recipe, "resumed": resumed}
    values["data"] = [
        {
            "kind": "text",
            "used_rows": entry.get("rows"),
            "sha256": entry.get("sha256_of_blocks"),
            "license": entry.get("licence"),
            **entry,
        }
        for entry in values.get("data", [])
    ]
    if "evaluation" in values:
        values["final_evaluation"] = values.pop("evaluation")
    return values
