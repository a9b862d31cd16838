"""A meter that keeps what it counts."""

from laconic.telemetry.meter import Meter


class RecordingMeter(Meter):
    """Every frame, with what the paper charges for it and whether a flag bit came on top."""

    def __init__(self):
        super().__init__()
        self.seen = {"up": [], "down": []}

    def frame(self, direction, frame, n_bytes, *, paper_bits, flag_bit, **details):
        self.seen[direction].append((frame, paper_bits, flag_bit))
        super().frame(direction, frame, n_bytes, paper_bits=paper_bits, flag_bit=flag_bit, **details)


def with_recording_meters(run):
    """The run, with such a meter at every worker. It must be one of real frames, as with a fault plan, be it empty."""
    assert not run.sim.is_unsplit
    for worker in run.sim.workers:
        worker.meter = RecordingMeter()
    return run
