"""What a round costs on other machines: work from sizes, time from rates, what slow devices and failures add.

The model behind ``python -m benchmarks scale``. Work is counted by hand, in units that are linear in the sizes; what a
unit takes comes from measurements on a core (`Rates`) or from a device's data sheet (`Device`).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

BLOCKS = 16  # that a process's share is cut into, as in rsir.runtime.processes
TERMS = {
    "train": ("tokens", "table"),
    "generate": ("steps", "scan"),
    "evaluate": ("tokens", "scan"),
}
"""What the time of a phase is made of; a table term moves bytes, the others multiply and add."""


@dataclass(frozen=True)
class Sizes:
    """A round: one training, one generation, and the evaluations."""

    users: int
    items: int
    length: int = 10  # items a user, those held out left out
    m: int = 10
    validations: int = 40  # each after a pass over the real sequences
    batch: int = 256
    dim: int = 64
    feedforward: int = 128
    layers: int = 2
    negatives: int = 1024

    @property
    def evaluations(self) -> int:
        """Of all users: after every pass, and validation and test of the round."""
        return self.validations + 2

    @property
    def parameters(self) -> int:
        return self.items * self.dim

    def units(self, phase: str) -> tuple[float, float]:
        """How much of both terms of a phase there is."""
        tokens = float(self.users * self.length)
        if phase == "train":
            steps = self.validations * -(-self.users // self.batch)
            return tokens * self.validations, float(steps * self.parameters)
        if phase == "generate":
            steps = float(self.users * self.m * (self.length - 1))
            return steps, steps * self.parameters
        return tokens * self.evaluations, float(self.users * self.evaluations * self.parameters)

    def operations(self, phase: str) -> tuple[float, float]:
        """Floating point operations of a unit of both terms; bytes of a unit of the table."""
        layer = 2 * (4 * self.dim**2 + 2 * self.dim * self.feedforward) + 2 * self.dim * self.length
        forward = float(self.layers * layer)
        if phase == "train":
            # read and written: weights, two moments, average; written, added to and read: gradients
            return 3 * forward + 6 * self.dim * (self.negatives + 1), 4.0 * (4 + 4 + 3)
        return forward, 2.0


@dataclass(frozen=True)
class Rates:
    """Seconds of one core for a unit of each term, and what its multiply-adds reach at most a second."""

    seconds: dict[str, tuple[float, float]]
    peak: float

    def predict(self, sizes: Sizes, phase: str) -> float:
        """Core-seconds."""
        return float(np.dot(self.seconds[phase], sizes.units(phase)))

    def share(self, sizes: Sizes, phase: str, term: int) -> float:
        """Of the core's peak that a term reaches; 1 where the measurements leave nothing to the term."""
        seconds = self.seconds[phase][term]
        return min(1.0, sizes.operations(phase)[term] / (seconds * self.peak)) if seconds else 1.0


@dataclass(frozen=True)
class Device:
    """A GPU and its machine, by the data sheets that `sources` name."""

    name: str
    flops: float  # float32, in which scores are exact
    bandwidth: float  # bytes a second
    memory: float
    near: float  # bytes a second that a GPU sends to those of its machine
    far: float  # to those of other machines
    a_machine: int
    host_memory: float
    price: float  # USD an hour
    mtbf: float  # hours of a GPU between failures that end a job
    sources: tuple[str, ...] = ()


H100 = Device(
    name="H100 SXM",
    flops=67e12,
    bandwidth=3.35e12,
    memory=80e9,
    near=450e9,
    far=50e9,
    a_machine=8,
    host_memory=2048 * 2**30,
    price=4.916,
    mtbf=16_384 * 54 * 24 / 419,
    sources=(
        "67 TFLOP/s in float32, 3.35 TB/s, 80 GB, NVLink 900 GB/s both ways together: NVIDIA H100 data sheet, "
        "nvidia.com/en-us/data-center/h100",
        "8 a machine, 2,048 GiB, 3,200 Gbit/s to other machines, USD 4.916 an hour for each: AWS p5.48xlarge in US "
        "East, prices to 1 January 2025, aws.amazon.com/ec2/capacityblocks/pricing",
        "419 unexpected interruptions of 16,384 GPUs in 54 days, 50,676 GPU-hours each: The Llama 3 Herd of Models, "
        "section 3.3.4, arxiv.org/abs/2407.21783",
    ),
)


@dataclass(frozen=True)
class Assumed:
    """What neither a measurement nor a source says."""

    bandwidth_share: float = 0.5  # of the nominal bandwidth that Adam and the links reach
    batch: int = 4096  # sequences a step, of each GPU
    spread: float = 0.05  # of devices' speeds, standard deviation of the logarithm
    block_spread: float = 0.2  # of the work of blocks of equal size
    slow: float = 0.01  # share of devices at half speed
    restart: float = 600.0  # seconds until a failed job computes again
    save: float = 10.0  # seconds of work between two saves, which a failure loses at most
    copies: int = 6  # of the item table on a GPU: weights, gradients, two moments, average, best

    def described(self, sizes: Sizes) -> list[str]:
        return [
            f"{sizes.length} items a user; every trajectory is as long as its source and every step of it scans the "
            "catalogue: more than a round with a filter does, of whose trajectories most end early",
            f"{sizes.m} trajectories a user, {sizes.validations} passes and validations a training, SASRec of width "
            f"{sizes.dim} and {sizes.layers} layers, {sizes.negatives:,} negatives",
            "a term reaches the share of the device's float32 peak that it reaches of the core's here",
            f"Adam and the links reach {self.bandwidth_share:.0%} of their nominal bandwidth; every GPU steps the "
            "whole table and sends its gradients around a ring",
            f"{self.batch:,} sequences a step and GPU, at no loss of quality",
            f"speeds of devices spread by {self.spread:.0%}, {self.slow:.0%} of them at half speed; blocks of equal "
            f"size spread by {self.block_spread:.0%}; in training the slowest sets the pace",
            f"a failed GPU ends the job, which computes again {self.restart:.0f} s later and has lost "
            f"{self.save:.0f} s of work at most",
            "reading, acquisition and writing by the first process are not counted; nor are failures while starting",
        ]


@dataclass
class Plan:
    """A round on some devices; seconds when nothing fails and all are as fast."""

    gpus: int
    seconds: dict[str, float]
    evaluations: int  # each of which ends before the next begins
    notes: list[str] = field(default_factory=list)

    @property
    def ideal(self) -> float:
        return sum(self.seconds.values())


def plan(sizes: Sizes, rates: Rates, device: Device, assumed: Assumed, gpus: int) -> Plan:
    """What a round takes on so many devices."""

    def computing(phase: str, term: int) -> float:
        operations = sizes.units(phase)[term] * sizes.operations(phase)[term]
        return operations / (device.flops * rates.share(sizes, phase, term)) / gpus

    steps = sizes.validations * -(-sizes.users // (assumed.batch * gpus))
    stepping = steps * sizes.parameters * sizes.operations("train")[1] / (device.bandwidth * assumed.bandwidth_share)
    link = device.near if gpus <= device.a_machine else device.far
    sending = steps * 4 * sizes.parameters * 2 * (gpus - 1) / gpus / (link * assumed.bandwidth_share)
    seconds = {
        "train": computing("train", 0) + stepping + sending,
        "generate": computing("generate", 0) + computing("generate", 1),
        "evaluate": computing("evaluate", 0) + computing("evaluate", 1),
    }
    notes = []
    if assumed.copies * 4 * sizes.parameters > device.memory:
        notes.append(f"the item table does not fit {device.name}")
    a_machine = min(gpus, device.a_machine) * host_bytes(sizes)
    if a_machine > device.host_memory:
        notes.append(f"the data, whole in each process, do not fit a machine: {a_machine / 2**30:,.0f} GiB")
    return Plan(gpus, seconds, sizes.evaluations, notes)


def fewest(sizes: Sizes, rates: Rates, device: Device, assumed: Assumed, hours: float, most: int = 1024) -> Plan:
    """On as few devices as end within some hours, a power of 2; else on the number that ends first."""
    plans = [plan(sizes, rates, device, assumed, 2**n) for n in range(most.bit_length())]
    return next((p for p in plans if p.ideal <= hours * 3600), min(plans, key=lambda p: p.ideal))


def host_bytes(sizes: Sizes) -> float:
    """Of the real sequences and as many trajectories: items, offsets, sources, rounds."""
    return 2.0 * sizes.users * (4 * sizes.length + 8 + 8 + 2)


def simulate(planned: Plan, device: Device, assumed: Assumed, random: np.random.Generator) -> float:
    """Seconds of one round with devices of different speeds and failures, event by event."""
    slowness = np.exp(random.normal(0, assumed.spread, planned.gpus))
    slowness[random.random(planned.gpus) < assumed.slow] *= 2
    clean = planned.seconds["train"] * float(slowness.max() / np.exp(assumed.spread**2 / 2))
    clean += _divided(planned.seconds["generate"], slowness, assumed, random)
    times = planned.evaluations
    clean += times * _divided(planned.seconds["evaluate"] / times, slowness, assumed, random)
    return _with_failures(clean, planned.gpus, device, assumed, random)


def _divided(seconds: float, slowness: np.ndarray, assumed: Assumed, random: np.random.Generator) -> float:
    """Blocks, each to the device that asks first; -> when the last one ends."""
    count = BLOCKS * len(slowness)
    work = np.exp(random.normal(0, assumed.block_spread, count))
    work *= seconds * len(slowness) / work.sum()
    free = [(0.0, device) for device in range(len(slowness))]
    last = 0.0
    for block in work:
        at, device = heapq.heappop(free)
        at += block * slowness[device]
        last = max(last, at)
        heapq.heappush(free, (at, device))
    return last


def _with_failures(seconds: float, gpus: int, device: Device, assumed: Assumed, random: np.random.Generator) -> float:
    """When work of some seconds ends if a failure of any device stops all of them."""
    done = clock = 0.0
    while True:
        until = random.exponential(device.mtbf * 3600 / gpus)
        if done + until >= seconds:
            return clock + seconds - done
        clock += until + assumed.restart
        done = max(done, done + until - random.uniform(0, assumed.save))
