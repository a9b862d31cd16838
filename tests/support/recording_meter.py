"""A meter that records what it counts."""

from laconic.telemetry.meter import Meter


class RecordingMeter(Meter):
    """Records every frame, with its paper bits and whether it counts a flag bit."""

    def __init__(self):
        super().__init__()
        self.seen = {"up": [], "down": []}

    def frame(self, direction, frame, n_bytes, *, paper_bits, flag_bit, **details):
        self.seen[direction].append((frame, paper_bits, flag_bit))
        super().frame(direction, frame, n_bytes, paper_bits=paper_bits, flag_bit=flag_bit, **details)


def with_recording_meters(run):
    """The run, with such a meter at every worker. Its frames must be encoded, as with frames="encoded"."""
    assert run.sim.frames == "encoded"
    for worker in run.sim.workers:
        worker.meter = RecordingMeter()
    return run
