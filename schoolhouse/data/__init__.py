"""Every data set in TRL's columns: `messages`; `prompt`, `completion`; `chosen`, `rejected`; `prompt`; or `text`."""

from schoolhouse.core.manifest import DataSource
from schoolhouse.data.mixture import load_training_data
from schoolhouse.data.specs import dataset_names, load_dataset_spec, load_rows


__all__ = ["DataSource", "dataset_names", "load_dataset_spec", "load_rows", "load_training_data"]
