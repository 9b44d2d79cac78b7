"""The report card: what stages changed, read from JSON only, written as one page and as Markdown."""
