"""`laconic data`: check and fetch data sets, and show how workers share one."""

from laconic.cli.invocation import group_of_commands
from laconic.cli.lazy import LazyCommand, LazyGroup


class _Data(LazyGroup):
    lazy_commands = (
        LazyCommand(
            "check", "laconic.cli.data.commands", "data_check",
            "Check that the files of a data set are there, have the published checksums and can be read.",
        ),
        LazyCommand(
            "fetch", "laconic.cli.data.commands", "data_fetch",
            "Fetch the files of a published data set from an address, go on where a fetch broke off, and check them.",
        ),
        LazyCommand(
            "partition", "laconic.cli.data.partition", "data_partition",
            "Show how workers share a data set: examples and classes of each.",
        ),
    )  # fmt: skip


data = group_of_commands("data", _Data, "Check and fetch data sets, and show how workers share one.")
