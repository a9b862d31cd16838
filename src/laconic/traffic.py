"""What a program sends: `watch()` counts every collective call of torch.distributed, of whoever makes it."""

from laconic.telemetry.watching import Calls, Watched, watch

__all__ = ["Calls", "Watched", "watch"]
