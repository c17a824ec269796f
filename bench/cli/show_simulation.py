"""A simulated run on the terminal: what it would take, and who does what when."""

from bisect import bisect_right
from collections import Counter

from rich.table import Table
from rich.text import Text

from bench.cli.show import terminal
from bench.running.progress import seconds
from bench.scheduling.simulate import Simulated, Simulation, Turn

MAX_ROWS = 32
"""Slots that are drawn; of more the first and the last."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
IDLE = "."


def print_simulation(simulated: Simulated) -> None:
    """The whole of it: figures, what is trained, the picture."""
    told, console = simulated.told, terminal()
    longest = max(told.turns, key=lambda turn: turn.ended_s - turn.began_s)
    n = len(told.turns)
    console.print(Text(f"\nSimulated on {told.machine.words}: {_slots(told)}", style="bold"))
    rows = [
        ("first to last training", seconds(told.makespan_s)),
        ("one after the other on one slot", seconds(simulated.alone_s)),
        ("speed-up", f"{simulated.speed_up:.1f} x"),
        ("slots without work", f"{100 * told.idle:.1f} % of their time"),
        ("not to be beaten: work / slots", seconds(told.busy_s / told.n_slots)),
        ("not to be beaten: the longest stack", f"{seconds(told.longest_s)}, {longest.stack[0].method.label}"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table)
    console.print(_kinds_table(told))
    width = max(min(console.width, 120) - 12, 20)
    letters = _letters(told)
    order = sorted(range(told.n_slots), key=lambda slot: _number(told.machine.devices[slot]))
    for row in _shown(told.n_slots):
        console.print(Text("     ...") if row is None else _row(told, order[row], letters, width))
    end = seconds(told.makespan_s)
    console.print(Text(f"{'':>9}0{end:>{width - 1}}"))
    console.print(
        Text(f"{n:,} stacks; one column is {_short(told.makespan_s / width)}, '{IDLE}' is a slot without work.")
    )
    if simulated.note:
        console.print(Text(simulated.note))


def _slots(told: Simulation) -> str:
    return f"{told.n_slots} slot{'s' * (told.n_slots > 1)}"


def _letters(told: Simulation) -> dict[tuple[str, str], str]:
    """A letter for each method on each data set, the most time first; the rest share the last."""
    spent: Counter[tuple[str, str]] = Counter()
    for turn in told.turns:
        spent[_name(turn)] += turn.ended_s - turn.began_s  # type: ignore[assignment]
    return {name: LETTERS[min(i, len(LETTERS) - 1)] for i, (name, _) in enumerate(spent.most_common())}


def _name(turn: Turn) -> tuple[str, str]:
    return turn.stack[0].dataset.label, turn.stack[0].method.label


def _kinds_table(told: Simulation) -> Table:
    """What each letter stands for: trainings, stacks, seconds."""
    numbers = ("trainings", "stacks", "largest", "each", "together")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("", "data set", "method", *numbers):
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    turns: dict[tuple[str, str], list[Turn]] = {}
    for turn in told.turns:
        turns.setdefault(_name(turn), []).append(turn)
    letters = _letters(told)
    for name, letter in list(letters.items())[:MAX_ROWS]:
        own = turns[name]
        n, spent = sum(len(turn.stack) for turn in own), sum(turn.ended_s - turn.began_s for turn in own)
        cells = (
            f"{n:,}",
            f"{len(own):,}",
            str(max(len(turn.stack) for turn in own)),
            _short(spent / n),
            seconds(spent),
        )
        table.add_row(Text(letter, style=_colour(letter)), *map(Text, (*name, *cells)))
    if len(letters) > MAX_ROWS:
        table.add_row(Text(""), Text(f"and {len(letters) - MAX_ROWS} more (--json has them)"))
    return table


def _short(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else seconds(value)


def _colour(letter: str) -> str:
    return COLOURS[LETTERS.index(letter) % len(COLOURS)]


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _shown(n_slots: int) -> list[int | None]:
    if n_slots <= MAX_ROWS:
        return list(range(n_slots))
    return [*range(MAX_ROWS - 2), None, n_slots - 1]


def _row(told: Simulation, slot: int, letters: dict[tuple[str, str], str], width: int) -> Text:
    """What a slot does, a character a column of time."""
    turns = told.of_slot(slot)
    begins = [turn.began_s for turn in turns]
    line = Text(f"{told.machine.devices[slot]:>8} ")
    for column in range(width):
        at = (column + 0.5) / width * told.makespan_s
        index = bisect_right(begins, at) - 1
        if index < 0 or turns[index].ended_s < at:
            line.append(IDLE, style="dim")
        else:
            letter = letters[_name(turns[index])]
            line.append(letter, style=_colour(letter))
    return line
