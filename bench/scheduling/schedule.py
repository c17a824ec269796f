"""Which stack a free slot trains next. The whole policy of a run, without its processes, files and clocks: `bench run`
asks it with real slots and `bench plan --simulate` with imagined ones.

Order: that of the plan, in which a first comparison is early, but what is long compared with what is left goes first,
longest first: near the end that is everything, so no slot runs long after the others have nothing left.
Sizes: as many trainings as pay on the device and fit its memory, in stacks of equal size; once there are fewer stacks
than slots that soon have nothing to do, the longest are split.
Crowds: where the number of workers a GPU is left to the suite, it begins with one, adds one more when that one has
been measured, and keeps as many as got the most work done.
"""

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from bench.grid.plan import Training
from bench.scheduling.cost_model import CostModel, device_kind
from bench.scheduling.stacks import most_in_a_stack, stack_key

LONG = 8.0
"""A stack is long when it takes more than this part of the time the slots still need."""
SOON = 0.5
"""A slot counts as free for the next stack when it is done before this share of it."""
BETTER = 1.1
"""How much more work a further worker on a GPU must get done to be kept."""
TRIALS = 2
"""Stacks a worker must have finished before their number is judged."""
MAX_WORKERS = 4
"""Workers on a GPU at most: each takes half a GiB for CUDA before the first tensor."""

Take = Callable[[Training], bool]
_NEVER = (-10, math.inf)


class _Bucket:
    """Trainings that may share a stack, or are of one kind, in the plan's order."""

    __slots__ = ("cost_s", "example", "key", "most", "stackable", "waiting")

    def __init__(self, key: Hashable, stackable: bool, example: Training) -> None:
        self.key, self.stackable, self.example = key, stackable, example
        self.waiting: deque[tuple[int, Training]] = deque()
        """With their numbers in the plan."""
        self.most = 1
        """The largest stack, as devices and memory allow."""
        self.cost_s = 0.0
        """Seconds of one of its trainings as a member of a large stack."""


@dataclass
class _Slot:
    device: str
    place: int
    """How many slots of the same device come before it."""
    stack: list[Training] = field(default_factory=list)
    began: float = 0.0
    expected_s: float = 0.0
    share: float = 0.0
    """Of its epochs done."""
    company: int | None = None
    """Workers at work on its device, itself included, while it runs; None once that has changed."""
    seen_early: bool = False

    def left_s(self, now: float) -> float:
        """Seconds until it is free: from its epochs where enough are done, else as expected."""
        if not self.stack:
            return 0.0
        elapsed = now - self.began
        if self.share > 0.1:
            return elapsed * (1 - self.share) / self.share
        return max(self.expected_s - elapsed, 0.05 * self.expected_s)


class Crowd:
    """How many workers a kind of device takes: tried, measured, and then kept."""

    def __init__(self, most: int) -> None:
        self.most, self.workers, self.settled = most, 1, most == 1
        self._slowed: dict[int, list[float]] = {}

    def slowdown(self, workers: int) -> float:
        """How many times longer a training takes among so many workers than alone, as far as measured."""
        seen = self._slowed.get(workers)
        return math.exp(sum(seen) / len(seen)) if seen else 1.0

    def measured(self, workers: int, ratio: float, enough_left: bool) -> None:
        """Take over that a stack took `ratio` times as long as it would alone; judge when enough were seen."""
        if self.settled or workers != self.workers:
            return
        seen = self._slowed.setdefault(workers, [])
        seen.append(math.log(ratio))
        if len(seen) < TRIALS * workers:
            return
        if workers > 1 and self._throughput(workers) < BETTER * self._throughput(workers - 1):
            self.workers, self.settled = workers - 1, True
        elif workers == self.most:
            self.settled = True
        elif enough_left:
            self.workers += 1

    def _throughput(self, workers: int) -> float:
        return workers / self.slowdown(workers)

    def out_of_memory(self) -> None:
        """Fewer from now on."""
        self.workers, self.settled = max(self.workers - 1, 1), True


class Schedule:
    """What waits, what runs, and what comes next."""

    def __init__(
        self, devices: Sequence[str], costs: CostModel, *, stack: int | str = "auto", crowd: bool = False
    ) -> None:
        """A schedule of nothing yet.

        Args:
            devices: that of each slot.
            costs: what trainings take.
            stack: trainings in a stack: `auto`, or a number that is then always taken, so that the same grid makes the
                same stacks.
            crowd: whether slots that share a GPU are only opened one after the other, as far as that pays.
        """
        self.costs, self.stack = costs, stack
        seen: dict[str, int] = {}
        self.slots: list[_Slot] = []
        for device in devices:
            self.slots.append(_Slot(device, seen.get(device, 0)))
            seen[device] = seen.get(device, 0) + 1
        most = min(max(seen.values(), default=1), MAX_WORKERS) if crowd else 1
        self.crowds = {device_kind(device): Crowd(most) for device in devices} if crowd else {}
        self.parts: deque[list[Training]] = deque()
        """Halves of stacks that did not end well, and what lost its machine: tried as they are."""
        self.buckets: dict[Hashable, _Bucket] = {}
        self._bucket_of: dict[tuple[object, ...], _Bucket] = {}
        self._kept: list[Training] = []
        """So that no other object gets the addresses by which they are found."""
        self._heads: list[tuple[int, int, _Bucket]] = []
        """The first waiting training of each bucket by its number in the plan; some are out of date."""
        self._caps: dict[Hashable, int] = {}
        """What a stack of a kind is limited to since it ran out of memory."""
        self._n_added = self._n_waiting = 0
        self._ranked: list[_Bucket] = []
        """Those with something in them, the longest last."""
        self._work_s = 0.0
        self._ranked_at = _NEVER
        """What the ranking knew, and how many waited."""

    # ---- what waits ---------------------------------------------------------------------------------------

    def add(self, trainings: Iterable[Training]) -> None:
        """Put trainings at the end of the queue."""
        for training in trainings:
            bucket = self._bucket(training)
            if not bucket.waiting:
                heappush(self._heads, (self._n_added, id(bucket), bucket))
            bucket.waiting.append((self._n_added, training))
            self._n_added += 1
            self._n_waiting += 1
        self._ranked_at = _NEVER

    def __len__(self) -> int:
        """How many trainings wait."""
        return self._n_waiting + sum(map(len, self.parts))

    def _bucket(self, training: Training) -> _Bucket:
        own = (id(training.method), id(training.dataset), id(training.settings), training.conditions, training.save)
        if own not in self._bucket_of:
            self._kept.append(training)
            key = stack_key(training) if self._stacks else None
            name = own if key is None else key
            self._bucket_of[own] = self.buckets.setdefault(name, _Bucket(name, key is not None, training))
        return self._bucket_of[own]

    @property
    def _stacks(self) -> bool:
        """Whether any stack of several is to be made."""
        return self.stack != 1 and any(self._most(slot.device) > 1 for slot in self.slots)

    def _most(self, device: str) -> int:
        return self.stack if isinstance(self.stack, int) else most_in_a_stack(device)

    # ---- what comes next ----------------------------------------------------------------------------------

    def next_stack(self, slot: int, now: float, take: Take = lambda training: True) -> list[Training]:
        """What a free slot trains next; nothing when nothing waits for it.

        Args:
            slot: its number.
            now: seconds on the caller's clock.
            take: told of each training before it is given out; False where another scheduler has it.
        """
        own = self.slots[slot]
        if not self.is_open(slot):
            return []
        stack = self.parts.popleft() if self.parts else self._from_queue(own, now, take)
        if stack:
            own.stack, own.began, own.share, own.seen_early = stack, now, 0.0, False
            own.expected_s = self.costs.seconds(stack[0], own.device, len(stack))
            self._meet(own)
        return stack

    def is_open(self, slot: int) -> bool:
        """Whether the slot takes part: on a crowded GPU one more worker may not pay."""
        own = self.slots[slot]
        crowd = self.crowds.get(device_kind(own.device))
        return crowd is None or own.place < crowd.workers

    def n_busy(self, device: str) -> int:
        """How many slots of a device are at work."""
        return sum(bool(slot.stack) for slot in self.slots if slot.device == device)

    def _from_queue(self, own: _Slot, now: float, take: Take) -> list[Training]:
        stack: list[Training] = []
        while self._n_waiting and not stack:
            bucket = self._choose(now)
            size = self._size(bucket, own, now)
            while bucket.waiting and len(stack) < size:
                _, training = bucket.waiting.popleft()
                self._n_waiting -= 1
                self._work_s -= bucket.cost_s
                if take(training):
                    stack.append(training)
            if bucket.waiting:
                heappush(self._heads, (bucket.waiting[0][0], id(bucket), bucket))
        return stack

    def _choose(self, now: float) -> _Bucket:
        """The longest, where it is long compared with what is left; else what comes next in the plan."""
        self._rank()
        while not self._ranked[-1].waiting:
            self._ranked.pop()
        longest = self._ranked[-1]
        if self._stack_s(longest, self.slots[0].device) * LONG > self.left_per_slot_s(now):
            return longest
        while True:
            number, _, bucket = self._heads[0]
            if bucket.waiting and bucket.waiting[0][0] == number:
                return bucket
            heappop(self._heads)

    def _rank(self) -> None:
        """Sort the buckets by the length of their stacks, again whenever a tenth more is known or a tenth is done."""
        if self.costs.version < 1.1 * self._ranked_at[0] + 1 and self._n_waiting > 0.9 * self._ranked_at[1]:
            return
        self._ranked_at = (self.costs.version, self._n_waiting)
        device = self.slots[0].device
        self._ranked = [bucket for bucket in self.buckets.values() if bucket.waiting]
        self._work_s = 0.0
        for bucket in self._ranked:
            n = len(bucket.waiting)
            bucket.most = self._limit(bucket, device)
            size = min(bucket.most, -(-n // len(self.slots)))
            bucket.cost_s = self.costs.seconds(bucket.example, device, size) / size
            self._work_s += n * bucket.cost_s
        self._ranked.sort(key=lambda bucket: (self._stack_s(bucket, device), -bucket.waiting[0][0]))

    def _limit(self, bucket: _Bucket, device: str) -> int:
        if not bucket.stackable:
            return 1
        return min(self._most(device), self._caps.get((bucket.key, device_kind(device)), 1 << 30))

    def _stack_s(self, bucket: _Bucket, device: str) -> float:
        """Seconds of a bucket's largest stack."""
        return bucket.cost_s * min(bucket.most, len(bucket.waiting))

    def _size(self, bucket: _Bucket, own: _Slot, now: float) -> int:
        """How many trainings of a bucket go to a slot: stacks of equal size, split while slots would stay idle."""
        n, most = len(bucket.waiting), self._limit(bucket, own.device)
        if most == 1 or isinstance(self.stack, int):
            return min(n, most)
        even = -(-n // -(-n // most))
        soon = SOON * self.costs.seconds(bucket.example, own.device, even)
        free = sum(self.is_open(i) and slot.left_s(now) <= soon for i, slot in enumerate(self.slots))
        return -(-n // self._n_stacks(bucket, own.device, max(free, 1)))

    def _n_stacks(self, wanted: _Bucket, device: str, n_free: int) -> int:
        """Into how many stacks a bucket goes: the fewest that its largest size allows, more while slots are left over.

        Each slot left over splits the stacks that are then the longest.
        """
        fewest = -(-len(wanted.waiting) // self._limit(wanted, device))
        counts: dict[_Bucket, int] = {}
        total = 0
        for bucket in self._ranked:
            counts[bucket] = -(-len(bucket.waiting) // self._limit(bucket, device))
            total += counts[bucket]
            if total >= n_free:
                return fewest
        while total < n_free:
            splittable = [bucket for bucket in counts if bucket.stackable and counts[bucket] < len(bucket.waiting)]
            if not splittable:
                break
            counts[max(splittable, key=lambda bucket: self._length(bucket, counts[bucket], device))] += 1
            total += 1
        return counts[wanted]

    def _length(self, bucket: _Bucket, n_stacks: int, device: str) -> float:
        size = -(-len(bucket.waiting) // n_stacks)
        return self.costs.seconds(bucket.example, device, size)

    # ---- what happens -------------------------------------------------------------------------------------

    def progress(self, slot: int, share: float, now: float) -> None:
        """A slot has done this share of its epochs; at 0 it has loaded the data and begins."""
        own = self.slots[slot]
        if not own.stack:
            return
        if share == 0:
            own.began = now
        own.share = max(own.share, share)
        if share > 0.2 and not own.seen_early and not self.costs.knows(own.stack[0], own.device):
            own.seen_early = True  # better than nothing for the rest of its kind, until the first has finished
            self.costs.learn(own.stack[0], own.device, (now - own.began) / share, len(own.stack), weight=0.2)

    def ended(self, slot: int, seconds: float | None = None) -> None:
        """A slot is free again.

        Args:
            slot: its number.
            seconds: what its stack took to train and evaluate, to learn from; None where it failed.
        """
        own = self.slots[slot]
        stack, own.stack = own.stack, []
        if seconds is not None and stack:
            self._learn(own, stack, seconds)
        own.company = None

    def _learn(self, own: _Slot, stack: list[Training], seconds: float) -> None:
        crowd = self.crowds.get(device_kind(own.device))
        if crowd is None or crowd.most == 1:
            self.costs.learn(stack[0], own.device, seconds, len(stack))
            return
        alone = self.costs.seconds(stack[0], own.device, len(stack))
        if own.company is not None:
            crowd.measured(own.company, seconds / alone if own.company > 1 else 1.0, self._n_waiting > len(self.slots))
            self.costs.learn(stack[0], own.device, seconds / crowd.slowdown(own.company), len(stack))

    def _meet(self, own: _Slot) -> None:
        """A worker begins: those beside it on its device have company they did not have all the time."""
        beside = [slot for slot in self.slots if slot.device == own.device and slot.stack]
        own.company = len(beside)
        for slot in beside:
            if slot is not own and slot.company != len(beside):
                slot.company = None

    def give_back(self, slot: int, left: list[Training], *, out_of_memory: bool) -> bool:
        """Take back what did not end well on a slot, to be tried in halves; remember what does not fit.

        Returns:
            False for a training that failed on its own: it is not taken back.
        """
        device = device_kind(self.slots[slot].device)
        half = (len(left) + 1) // 2
        crowd = self.crowds.get(device)
        if out_of_memory and len(left) > 1:
            key = self._bucket(left[0]).key
            self._caps[key, device] = min(half, self._caps.get((key, device), half))
            self._ranked_at = _NEVER
        if len(left) == 1:
            if not (out_of_memory and crowd is not None and crowd.workers > 1):
                return False
            crowd.out_of_memory()
            self.parts.append(left)
        else:
            self.parts += [left[:half], left[half:]]
        return True

    def retry(self, stack: list[Training]) -> None:
        """Take back what lost its machine, to be tried as it is."""
        self.parts.append(stack)

    # ---- what is left -------------------------------------------------------------------------------------

    def left_per_slot_s(self, now: float) -> float:
        """Seconds the slots still need if the rest can be dealt out evenly."""
        self._rank()
        open_ = [slot for i, slot in enumerate(self.slots) if self.is_open(i)]
        parts = sum(self.costs.seconds(part[0], self.slots[0].device, len(part)) for part in self.parts)
        return (self._work_s + parts + sum(slot.left_s(now) for slot in self.slots)) / max(len(open_), 1)

    def left_s(self, now: float) -> float | None:
        """Seconds to the end; None before anything was measured."""
        if not self.costs.has_measured:
            return None
        self._rank()
        running = [slot.left_s(now) for slot in self.slots]
        waiting = [self._stack_s(bucket, self.slots[0].device) for bucket in self._ranked if bucket.waiting]
        return max(self.left_per_slot_s(now), *running, *waiting)
