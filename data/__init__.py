"""Every data set in TRL's columns: `messages`; `prompt`, `completion`; `chosen`, `rejected`; `prompt`; or `text`."""

from data.builders import DATASETS
from data.loading import LoadedData
from data.mixture import load_training_data


__all__ = ["DATASETS", "LoadedData", "load_training_data"]
