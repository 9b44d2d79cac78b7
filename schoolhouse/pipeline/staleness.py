"""Comparison of the stages' manifests with the settings, files and code of today: which stages are done.

A recipe records the fingerprints of what it used in its manifest. A stage is stale if one of them is another now, if
its product is no longer what the manifest says, or if one of its parents is stale or has another product than the one
that it was trained from. The last rule carries a change to all descendants. Library versions and commits of Hub data
sets are in the manifest but not among the fingerprints: an upgrade would train everything anew. The plan names them.
"""

from pathlib import Path

from schoolhouse.config.paths import shipped
from schoolhouse.core.fingerprint import code_hash, digest, evaluation_fingerprint, file_hash
from schoolhouse.core.fingerprint import stage_fingerprints as fingerprints_of
from schoolhouse.core.manifest import RUN_FILE, Evaluation, Fingerprints, PipelineIndex, RunManifest, read_manifest
from schoolhouse.core.run import product_hash, results_hash
from schoolhouse.pipeline.plan import Pipeline, Stage


EVAL_FOLDER = "eval"


def manifest_of(stage: Stage) -> RunManifest | None:
    """Return the manifest of a stage, `None` where there is none that can be read."""
    try:
        return read_manifest(stage.folder)
    except ValueError:
        return None


def stage_fingerprints(pipeline: Pipeline, stage: Stage) -> Fingerprints:
    """
    Return the fingerprints that a run of the stage would record now: settings, files and code as this process met them
    first, parents as they are now.
    """
    if stage.fingerprints is None:
        launch = pipeline.accelerate_config
        stage.fingerprints = fingerprints_of(stage.script, stage.config, pipeline.base_hash, product_hash, launch)
    parents = {name: product_hash(pipeline.folder / name) for name in stage.fingerprints.parents}
    return stage.fingerprints.model_copy(update={"parents": parents})


def is_done(pipeline: Pipeline, stage: Stage) -> bool:
    """Return whether a stage needs no training, as always for the base model."""
    return not stale_reason(pipeline, stage)


def is_left_out(pipeline: Pipeline, stage: Stage) -> bool:
    """Return whether a stage cannot be trained here: it, or one that it is trained from, needs Linux."""
    parents = [other for other in pipeline.stages if other.name in stage.parents]
    blocked = stage.needs_linux or any(is_left_out(pipeline, parent) for parent in parents)
    return blocked and not is_done(pipeline, stage)


def stale_reason(pipeline: Pipeline, stage: Stage) -> str:
    """Return why a stage is to be trained, in a few words; empty for a stage that is done."""
    if stage.recipe is None:
        return ""
    manifest = manifest_of(stage)
    if manifest is None:
        return "new"
    if manifest.fingerprints is None:
        return "of another version"
    now = stage_fingerprints(pipeline, stage)
    changed = [name for name in manifest.fingerprints.changed(now) if name != "parents"]
    # A parent that is stale now will be trained before this stage, and its product will be another one.
    for parent in (other for other in pipeline.stages if other.name in stage.parents):
        made_from = manifest.fingerprints.parents.get(parent.name)
        if made_from != now.parents[parent.name] or stale_reason(pipeline, parent):
            changed.append(f"parent {parent.name}")
    if changed:
        return f"changed: {', '.join(changed)}"
    if manifest.status != "done":
        return "to be resumed"
    return "" if manifest.product_hash == product_hash(stage.folder) else "adapter lost or altered"


def evaluation_of(stage: Stage) -> Evaluation | None:
    """Return the record of a stage's evaluation, `None` where there is none."""
    manifest = manifest_of(stage)
    return manifest.evaluation(EVAL_FOLDER) if manifest is not None else None


def is_evaluated(pipeline: Pipeline, stage: Stage) -> bool:
    """
    Return whether a stage's evaluation is that of its present adapter, tasks and code, and still as it was written.
    """
    entry = evaluation_of(stage)
    if entry is None or entry.status != "done":
        return False
    product = product_hash(stage.folder)
    # On a system that cannot score all tasks, an evaluation of all of them may come from another one.
    return any(
        entry.fingerprint
        == evaluation_fingerprint(shipped("eval/run.py"), {"tasks": tasks}, pipeline.base_hash, product)
        and entry.results_hash == results_hash(stage.folder / EVAL_FOLDER, tasks)
        for tasks in (stage.evals, stage.evals_here)
    )


def report_fingerprint(index: PipelineIndex) -> str:
    """Return the hash of everything that decides the report: stages, their manifests, and the report's code."""
    runs = [Path(stage.folder) / RUN_FILE for stage in index.stages]
    manifests = [file_hash(run) for run in runs if run.is_file()]
    return digest([index.model_dump(mode="json", exclude={"report"}), manifests, code_hash(shipped("eval/report.py"))])
