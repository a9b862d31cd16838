"""Many inputs in one test, and in a failure the one that failed."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def failing_at(**inputs: object) -> Iterator[None]:
    """Add these inputs to whatever is raised within, so that a failure in a loop shows where it was."""
    try:
        yield
    except BaseException as error:  # what `pytest.raises` fails with is no Exception
        error.add_note("at " + ", ".join(f"{name}={value!r}" for name, value in inputs.items()))
        raise
