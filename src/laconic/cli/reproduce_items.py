"""`laconic reproduce ITEM...`: run what the papers' tables and figures need, once for all of them, and judge it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from laconic.cli.cell_display import CellDisplay
from laconic.cli.json_output import JsonOutput
from laconic.cli.reproduce_pictures import FOLDER, remove_pictures, write_pictures, write_timeline
from laconic.errors import LaconicError, OptionError, Spelling
from laconic.lab.outputs import output_folder
from laconic.lab.processes.stopping import Stopped
from laconic.report.terminal import drawing_width, terminal
from laconic.report.visible import visible
from laconic.statements import LaconicWarning, warn

if TYPE_CHECKING:
    from laconic.lab.comparison.cell_runs import CellWork
    from laconic.lab.comparison.results import CellResult
    from laconic.lab.processes.pool import Figures
    from laconic.report.timeline.bars import Timeline
    from laconic.reproduce.item_runs import Choices, Folder, PlannedCell
    from laconic.reproduce.items import Item
    from laconic.reproduce.judging import Line


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """An item with its runs, or why it is not run."""

    item: "Item"
    cells: "list[PlannedCell]"
    why_not: str = ""


def run_items(
    items: "Sequence[Item]",
    choices: "Choices",
    figures: JsonOutput,
    *,
    out: Path | None,
    jobs: int | None,
    overwrite: bool,
    skip_refused: bool,
    grid: bool,
    quiet: bool,
) -> None:
    """Run items and print them.

    Args:
        items: The items.
        choices: Data, seeds and settings.
        figures: Where the results go.
        out: The folder of what is finished; None for one that is removed.
        jobs: Processes at once; None for one to a core.
        overwrite: Whether what is finished there is run again.
        skip_refused: Whether an item that cannot be run is left out and named, or refused.
        grid: Whether learning rates are searched first.
        quiet: Whether only results are printed.

    Raises:
        OptionError: An item cannot be run with these choices.
        LaconicError: A run has failed. What is finished is printed and on disk.
    """
    planned = [_plan(item, choices, skip_refused=skip_refused) for item in items]
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory())) if out is None else out
        folder = stack.enter_context(output_folder(path, option="out", overwrite=True, resume=True))
        from laconic.reproduce.item_runs import Folder

        if overwrite:
            Folder(folder.path).clear()
            remove_pictures(folder.path)
        if grid:
            runnable = [one.item for one in planned if not one.why_not]
            found = _search(runnable, choices, Folder(folder.path), figures, jobs=jobs, quiet=quiet)
            planned = [_plan(item, found, skip_refused=skip_refused) for item in items]
        _Items(planned, Folder(folder.path), figures, quiet=quiet, stays=out is not None).run(jobs)


def _plan(item: "Item", choices: "Choices", *, skip_refused: bool) -> _Planned:
    from laconic.reproduce.item_runs import check_choices, planned_cells

    try:
        check_choices(item, choices)
    except OptionError as error:
        if not skip_refused:
            raise
        return _Planned(item=item, cells=[], why_not=f"not run: {error.spelled(Spelling.FLAG)}")
    return _Planned(item=item, cells=planned_cells(item, choices))


def _search(
    items: "Sequence[Item]", choices: "Choices", folder: "Folder", figures: JsonOutput, *, jobs: int | None, quiet: bool
) -> "Choices":
    """Run the search of learning rates that is left, print it, and return the choices with the best.

    Raises:
        LaconicError: A run fails.
    """
    from laconic.report.items import search_table
    from laconic.reproduce.grid import best_factors, reached, tries_of

    tries = tries_of(items, choices)
    left = {f"search: {one.setting} {one.row}, rate {one.learning_rate:.2g}": one.cell for one in tries}
    left = {label: cell for label, cell in left.items() if folder.cell(cell) is None}
    runs = _Runs(left, (), folder)
    runs.run(jobs, quiet=quiet)
    if runs.problems:
        raise LaconicError("\n".join(runs.problems))
    best = best_factors(tries, folder)
    figures.console.print(search_table([(one, reached(one, folder)) for one in tries], best))
    return replace(choices, factors=best)


class _Runs:
    """What is trained and computed, and kept as soon as it is finished."""

    def __init__(self, cells: "Mapping[str, PlannedCell]", computed: Sequence[str], folder: "Folder") -> None:
        """Start nothing yet. `cells` are by the name that messages call them; `computed` are names of figures."""
        self._cells, self._computed, self._folder = cells, computed, folder
        self.problems: list[str] = []
        """Why some have failed."""

    def run(self, jobs: int | None, *, quiet: bool) -> None:
        """Check the data, then train and compute.

        Raises:
            ValueError: Data or sizes do not fit. Nothing is trained.
        """
        from laconic.lab.comparison.cell_runs import CellRuns
        from laconic.lab.comparison.checking import check_cells
        from laconic.reproduce.item_runs import NamedCell, work_of_cell, work_of_computed

        named = [NamedCell(name=name, planned=cell) for name, cell in self._cells.items()]
        of_size = {cell.size: cell for cell in named}  # to set up one of each row would take minutes
        estimates = check_cells(list(of_size.values()))
        works = [work_of_cell(cell, self._folder, estimates[of_size[cell.size].kind]) for cell in named]
        works += [work_of_computed(name) for name in self._computed]
        with CellDisplay(shown=not quiet) as display:
            CellRuns(works, self._keep, jobs=jobs, listen=display.listen).run()

    def _keep(self, work: "CellWork", result: "CellResult", figures: "Figures | None") -> "list[CellResult]":
        if figures is None:
            self.problems.append(f"{work.name}: {result.why}")
            return [result]
        try:
            if work.name in self._cells:
                self._folder.keep_cell(self._cells[work.name], figures)
            else:
                self._folder.keep_computed(work.name, figures)
        except OSError as error:
            with suppress(LaconicWarning):  # a warning that is an error here would cost what the others find
                warn(f"{error.filename}: {error.strerror}; {work.name} is finished, but not kept on disk")
        return [
            result if figures.get("diverged") is None else replace(result, state="diverged", why=figures["diverged"])
        ]


class _Items:
    """What items need, each run or computed once, and judged when all is finished."""

    def __init__(
        self, planned: Sequence[_Planned], folder: "Folder", json: JsonOutput, *, quiet: bool, stays: bool
    ) -> None:
        """Find what is finished."""
        from laconic.reproduce.code_hash import is_current

        self._planned, self._folder, self._json = planned, folder, json
        self._quiet, self._stays = quiet, stays
        cells: dict[str, PlannedCell] = {}
        computed: dict[str, None] = {}
        keys: set[str] = set()
        self._recorded: list[tuple[Item, Timeline]] = []
        for one in planned:
            for cell in one.cells:
                if cell.key not in keys and folder.cell(cell) is None:
                    keys.add(cell.key)
                    cells[f"{one.item.name}: {cell.row}, seed {cell.settings.seed}"] = cell
            if one.item.compute and not is_current(folder.computed(one.item.compute), one.item.compute):
                computed[one.item.compute] = None
        self._runs = _Runs(cells, list(computed), folder)

    def run(self, jobs: int | None) -> None:
        """Run what is left, print and write.

        Raises:
            LaconicError: A run has failed.
        """
        try:
            self._runs.run(jobs, quiet=self._quiet)
        except Stopped as stopped:
            self._print()
            if self._stays:
                stopped.add_note(f"what is finished is in {self._folder.path}; the same command goes on from there")
            raise
        data = self._print()
        if self._runs.problems:
            raise LaconicError("\n".join(self._runs.problems))
        wrote = [f"wrote {visible(str(file))}" for file in self._draw()] if self._stays else []
        for line in filter(None, [*wrote, self._json.write({"items": data})]):
            terminal(quiet=self._quiet or self._json.in_place_of_tables).print(line, soft_wrap=True)

    def _draw(self) -> "list[Path]":
        """Draw the items that are finished. Raises OSError as `write_pictures`."""
        from laconic.reproduce.item_runs import found_in

        folder = self._folder.path / FOLDER
        found = [(one.item, found_in(self._folder, one.item, one.cells)) for one in self._planned]
        timelines = [write_timeline(folder, item, timeline) for item, timeline in self._recorded]
        return [*timelines, *write_pictures(folder, found).values()]

    def _print(self) -> "list[dict[str, object]]":
        """Print every item, and return their data."""
        from laconic.report.item_timeline import timeline_of_item
        from laconic.report.items import data_of, list_of, printed_beside_measured, verdict_text
        from laconic.report.timeline.bars import in_letters
        from laconic.reproduce.item_runs import found_in
        from laconic.reproduce.judging import lines_of

        data: list[dict[str, object]] = []
        texts: dict[str, str] = {}
        for one in self._planned:
            item = one.item
            lines: list[Line] = lines_of(item, found_in(self._folder, item, one.cells))
            verdict = one.why_not or verdict_text(item, lines)
            texts[item.name] = verdict
            data.append({**data_of(item, lines), "verdict": verdict})
            if item.records:
                self._recorded.append((item, timeline_of_item(item)))
                console = self._json.console
                console.print(in_letters(self._recorded[-1][1], drawing_width(console)), soft_wrap=True)
            if any(line.figure for line in lines):
                self._json.console.print(printed_beside_measured(item, lines))
        self._json.console.print(list_of([one.item for one in self._planned], texts))
        return data


def known_verdicts(out: Path | None, choices: "Choices") -> dict[str, str]:
    """Return the verdict of each item, from what is finished in a folder, or why it has none."""
    from laconic.report.items import verdict_text
    from laconic.reproduce.items import items

    return {item.name: verdict_text(item, _lines(out, item, choices)) for item in items().values()}


def _lines(out: Path | None, item: "Item", choices: "Choices") -> "list[Line]":
    """Return the lines of an item from what is finished in a folder."""
    from laconic.reproduce.item_runs import Folder, found_in, planned_cells
    from laconic.reproduce.judging import lines_of

    return [] if out is None else lines_of(item, found_in(Folder(out), item, planned_cells(item, choices)))
