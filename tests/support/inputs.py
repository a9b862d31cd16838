"""Many inputs in one test, and in a failure the one that failed."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator

import pytest


@contextlib.contextmanager
def failing_at(**inputs: object) -> Iterator[None]:
    """Add these inputs to whatever is raised within, so that a failure in a loop shows its inputs."""
    try:
        yield
    except BaseException as error:  # what `pytest.raises` fails with is no Exception
        error.add_note("at " + ", ".join(f"{name}={value!r}" for name, value in inputs.items()))
        raise


def over_inputs(names: str | tuple[str, ...], values: Iterable) -> Callable:
    """Run a test over all values as one item, where `parametrize` makes one of each; all that fail are named.

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
            failures = []
            for row in rows:
                try:
                    with failing_at(**row):
                        test(**others, **row)
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(error)
            if failures:
                for error in failures[1:]:
                    inputs = [note for note in reversed(error.__notes__) if note.startswith("at ")]
                    failures[0].add_note(f"and {', '.join(inputs)}: {type(error).__name__}")
                raise failures[0]

        signature = inspect.signature(test)
        left = [argument for name, argument in signature.parameters.items() if name not in rows[0]]
        over_all.__signature__ = signature.replace(parameters=left)
        return over_all

    return decorate


def each_over(names: tuple[str, ...], rows: Iterable[tuple]) -> Callable:
    """Parametrize over the first of the names, what is tested; loop over the others' values that stand with it."""
    tested, *others = names
    grouped: dict[str, list] = {}
    for value, *rest in rows:
        grouped.setdefault(value, []).append(rest)

    def decorate(test: Callable) -> Callable:
        loops = {value: over_inputs(tuple(others), rest)(test) for value, rest in grouped.items()}

        @functools.wraps(test)
        def over_rest(**given):
            __tracebackhide__ = True
            loops[given[tested]](**given)

        over_rest.__signature__ = inspect.signature(next(iter(loops.values())))
        return pytest.mark.parametrize(tested, list(grouped))(over_rest)

    return decorate
