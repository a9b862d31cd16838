"""Many inputs in one test, and in a failure the one that failed."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def failing_at(**inputs: object) -> Iterator[None]:
    """Add these inputs to whatever is raised within, so that a failure in a loop shows its inputs."""
    try:
        yield
    except BaseException as error:  # what `pytest.raises` fails with is no Exception
        error.add_note("at " + ", ".join(f"{name}={value!r}" for name, value in inputs.items()))
        raise


def over_inputs(names: str | tuple[str, ...], values: Iterable) -> Callable:
    """Run a test over all values, like `pytest.mark.parametrize`, but as one item and up to the first failure.

    Parametrize over what is tested (kernels, kinds of packets, compressors); loop over what it is given.

    Args:
        names: one argument of the test, or several.
        values: what the argument is each time; tuples, with one value for each name, if there are several.
    """
    several = not isinstance(names, str)
    rows = [dict(zip(names, value, strict=True)) if several else {names: value} for value in values]
    assert rows

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def over_all(**others):
            __tracebackhide__ = True
            for row in rows:
                with failing_at(**row):
                    test(**others, **row)

        signature = inspect.signature(test)
        left = [argument for name, argument in signature.parameters.items() if name not in rows[0]]
        over_all.__signature__ = signature.replace(parameters=left)
        return over_all

    return decorate
