"""The cells of a printed table of runs."""

LEFT = ("algorithm", "layout")
RIGHT = ("accuracy", "up", "up ratio", "down", "down ratio", "total", "total ratio", "rounds", "aborted", "skips",
         "simulated s", "wall s")  # fmt: skip


def cells_of(text):
    """Each row's cells by column, by algorithm. `text` is all that a command printed, at its full width."""
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("algorithm"))
    header = lines[place]
    ends, at = {}, header.index("layout") + len("layout")
    for name in RIGHT:
        if f" {name} " in f"{header[at:]} ":
            at = header.index(f" {name}", at) + 1 + len(name)
            ends[name] = at
    rows = {}
    for line in lines[place + 2 :]:
        if len(line.rstrip()) != len(header):
            break
        start, words = ends["accuracy"], line[: ends["accuracy"]].split()
        row = {"layout": words[1], "accuracy": " ".join(words[2:])}
        for name, end in list(ends.items())[1:]:
            row[name] = line[start:end].strip()
            start = end
        rows[words[0]] = row
    return rows
