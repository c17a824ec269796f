"""A run without its trainings: the schedule of `bench run` on devices that need not be here, by expected seconds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from bench.grid.plan import Training
from bench.scheduling.cost_model import CostModel, device_kind
from bench.scheduling.schedule import Schedule
from datasets.errors import UserError

MAX_SLOTS = 1024

Seconds = Callable[[list[Training], str, int], float]
"""What a stack really takes on a device on which so many workers are at work."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stack on one slot."""

    slot: int
    began_s: float
    ended_s: float
    stack: list[Training]


@dataclass(frozen=True)
class Machine:
    """Devices to imagine, `gpus=8x2` or `cpus=16`."""

    words: str
    devices: tuple[str, ...]
    """The device of every slot."""


@dataclass
class Simulation:
    """How a run would go."""

    machine: Machine
    turns: list[Turn] = field(default_factory=list)

    @property
    def makespan_s(self) -> float:
        """Seconds from the first training's begin to the last one's end."""
        return max((turn.ended_s for turn in self.turns), default=0.0)

    @property
    def busy_s(self) -> float:
        """Seconds of all slots together with something to do."""
        return sum(turn.ended_s - turn.began_s for turn in self.turns)

    @property
    def longest_s(self) -> float:
        """Of a single stack."""
        return max((turn.ended_s - turn.began_s for turn in self.turns), default=0.0)

    @property
    def n_slots(self) -> int:
        return len(self.machine.devices)

    @property
    def idle(self) -> float:
        """Share of the slots' time without anything to do."""
        whole = self.makespan_s * self.n_slots
        return 1 - self.busy_s / whole if whole else 0.0

    def of_slot(self, slot: int) -> list[Turn]:
        """What a slot does, in order."""
        return [turn for turn in self.turns if turn.slot == slot]


def parse_machine(words: str) -> Machine:
    """The devices that `gpus=8`, `gpus=8x2` (two workers a GPU) or `cpus=16` names.

    Raises:
        UserError: it names none, or too many.
    """
    found = re.fullmatch(r"(gpu|cpu)s?=(\d{1,4})(?:x(\d{1,2}))?", words.strip())
    if found is None or (found[1] == "cpu" and found[3]):
        raise UserError(f"--simulate '{words}': write gpus=8, gpus=8x2 for two workers a GPU, or cpus=16.")
    n, workers = int(found[2]), int(found[3] or 1)
    if not 1 <= n * workers <= MAX_SLOTS:
        raise UserError(f"--simulate '{words}': from 1 to {MAX_SLOTS} slots, got {n * workers}.")
    names = [f"cuda:{i}" for i in range(n)] if found[1] == "gpu" else ["cpu"] * n
    return Machine(words.strip(), tuple(names * workers))


def simulate(
    trainings: Sequence[Training],
    machine: Machine,
    costs: CostModel,
    *,
    stack: int | str = "auto",
    crowd: bool = False,
    truth: Seconds | None = None,
) -> Simulation:
    """Let the schedule of a run deal out trainings, each stack taking the seconds that are expected of it.

    Args:
        trainings: what is left to train, in the plan's order.
        machine: on what.
        costs: what is expected.
        stack: trainings in a stack, see `Schedule`.
        crowd: see `Schedule`.
        truth: what stacks take where that is not what is expected; the schedule then learns as in a run.
    """
    schedule = Schedule(machine.devices, costs, stack=stack, crowd=crowd)
    schedule.add(trainings)
    told = Simulation(machine)
    ends: list[tuple[float, int, Turn]] = []
    now, free = 0.0, list(range(len(machine.devices)))
    while True:
        idle = []
        for slot in free:
            if not (given := schedule.next_stack(slot, now)):
                idle.append(slot)
                continue
            device = machine.devices[slot]
            if truth is None:
                took = costs.seconds(given[0], device, len(given))
            else:
                took = truth(given, device, schedule.n_busy(device))
            turn = Turn(slot, now, now + took, given)
            told.turns.append(turn)
            heappush(ends, (turn.ended_s, slot, turn))
        if not ends:
            return told
        now, slot, turn = heappop(ends)
        schedule.ended(slot, None if truth is None else turn.ended_s - turn.began_s)
        free = sorted([*idle, slot]) if schedule.crowds else [slot]


@dataclass(frozen=True)
class Simulated:
    """A simulation, and what it is compared with."""

    told: Simulation
    alone_s: float
    """What one slot of the same kind would take without stacks."""
    costs: CostModel

    @property
    def speed_up(self) -> float:
        return self.alone_s / self.told.makespan_s if self.told.makespan_s else 1.0

    @property
    def note(self) -> str:
        """What a person should know before believing it; nothing where it was measured."""
        device = device_kind(self.told.machine.devices[0])
        if any(self.costs.knows(turn.stack[0], device) for turn in self.told.turns[:100]):
            return ""
        return (
            f"Nothing of it was ever measured on a {'GPU' if device == 'cuda' else device}: the seconds are guesses "
            "from the size of the models, good to compare machines, no more."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        told = self.told
        return {
            "machine": told.machine.words,
            "slots": told.n_slots,
            "makespan_s": told.makespan_s,
            "one_after_the_other_s": self.alone_s,
            "speed_up": self.speed_up,
            "idle_share": told.idle,
            "longest_stack_s": told.longest_s,
            "note": self.note,
            "stacks": [
                {
                    "slot": turn.slot, "began_s": turn.began_s, "ended_s": turn.ended_s, "trainings": len(turn.stack),
                    "method": turn.stack[0].method.label, "dataset": turn.stack[0].dataset.label,
                }
                for turn in told.turns
            ],
        }  # fmt: skip
