"""Values of data rows."""


def is_missing(value: object) -> bool:
    """
    Return whether a row has no value in a column: `None`, or NaN, which tables of numbers hold in its place. 0,
    `False` and empty text are values.
    """
    return value is None or (isinstance(value, float) and value != value)
