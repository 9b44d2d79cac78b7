"""Every data set in TRL's columns: `messages`; `prompt`, `completion`; `chosen`, `rejected`; `prompt`; or `text`."""

from schoolhouse.data.builders import DATASETS
from schoolhouse.data.loading import LoadedData
from schoolhouse.data.mixture import load_training_data


__all__ = ["DATASETS", "LoadedData", "load_training_data"]
