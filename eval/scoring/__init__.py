"""What the numbers can bear: intervals, paired tests on the same items, pass@k and maj@k."""

from eval.scoring.intervals import bootstrap_mean, clustered_standard_error, wilson
from eval.scoring.paired import PairedTest, holm, mcnemar_exact, paired_bootstrap, smallest_detectable_effect
from eval.scoring.sampling import maj_at_k, pass_at_k


__all__ = [
    "PairedTest",
    "bootstrap_mean",
    "clustered_standard_error",
    "holm",
    "maj_at_k",
    "mcnemar_exact",
    "paired_bootstrap",
    "pass_at_k",
    "smallest_detectable_effect",
    "wilson",
]
