"""The timeline of an item that draws recorded rounds."""

from laconic.report.timeline.bars import Timeline, timeline_of
from laconic.reproduce.items import Item
from laconic.reproduce.recorded_rounds import RECORDED


def timeline_of_item(item: Item) -> Timeline:
    """Record the rounds of an item that `records` some, which takes seconds, and return their timeline."""
    recording = RECORDED[item.records]()
    title = f"Paper {item.paper}, {item.prints}: {recording.title}"
    return timeline_of(
        title, recording.steps, recording.network, nodes=recording.nodes, notes=recording.notes
    )  # fmt: skip
