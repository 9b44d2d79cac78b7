"""What the numbers can bear: intervals, paired tests and win rates on the same items, pass@k, the turn of a proxy."""

from schoolhouse.evaluation.statistics.intervals import bootstrap_mean, clustered_standard_error, wilson
from schoolhouse.evaluation.statistics.overoptimization import (
    TurningPoint,
    WinRate,
    summarise_run,
    turning_point,
    win_rate,
)
from schoolhouse.evaluation.statistics.paired import (
    PairedTest,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    smallest_detectable_effect,
)
from schoolhouse.evaluation.statistics.sampling import maj_at_k, pass_at_k


__all__ = [
    "PairedTest",
    "TurningPoint",
    "WinRate",
    "bootstrap_mean",
    "clustered_standard_error",
    "holm",
    "maj_at_k",
    "mcnemar_exact",
    "paired_bootstrap",
    "pass_at_k",
    "smallest_detectable_effect",
    "summarise_run",
    "turning_point",
    "wilson",
    "win_rate",
]
