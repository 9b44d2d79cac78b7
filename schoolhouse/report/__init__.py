"""The report of a pipeline: what its stages changed, read from JSON, written as one HTML page and as Markdown."""
