"""What devices send one another, read from a compiled program and predicted by formula."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
CALL = re.compile(rf"= (.+?) ({KINDS})\(.*")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
SCOPE = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One operation in which devices exchange data.

    Attributes:
        kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute.
        shapes: of what each device has afterwards; XLA may have joined several operations.
        devices: how many take part together.
        size: bytes of what each device has afterwards.
        scope: the layers that it belongs to, as JAX names them.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    devices: int
    size: int
    scope: str

    @property
    def sent(self) -> float:
        """Bytes that each device sends if the devices stand in a ring."""
        others = (self.devices - 1) / self.devices
        factors = {
            "all-reduce": 2 * others,  # a reduce-scatter, then an all-gather
            "all-gather": others,
            "reduce-scatter": self.devices - 1,
            "all-to-all": others,
            "collective-permute": 1,
        }
        return factors[self.kind] * self.size

    @property
    def steps(self) -> int:
        """How many times each device sends and waits if the devices stand in a ring."""
        others = self.devices - 1
        return {"all-reduce": 2 * others, "collective-permute": 1}.get(self.kind, others)

    def seconds(self, bandwidth: float, latency: float) -> float:
        """How long it takes in a ring: the time of its bytes, and of its steps.

        Args:
            bandwidth: bytes that a device sends in a second.
            latency: seconds that a step takes however little is sent.

        >>> stream = Collective("all-reduce", ((4096, 4096),), devices=8, size=2**25, scope="")
        >>> f"{1e6 * stream.seconds(bandwidth=450e9, latency=1e-6):.0f} microseconds"
        '144 microseconds'
        """
        return self.sent / bandwidth + self.steps * latency


def collectives(text: str) -> Iterator[Collective]:
    """The collectives of a compiled program, in the order of its text.

    Args:
        text: of `jax.jit(...).lower(...).compile().as_text()` on CPU devices; on other devices XLA
            splits a collective into a start and an end, which are not read here.

    >>> line = "%x = f32[2,8]{1,0} all-reduce(%y), replica_groups={{0,1},{2,3}}, to_apply=%add"
    >>> next(collectives(line))
    Collective(kind='all-reduce', shapes=((2, 8),), devices=2, size=64, scope='')
    >>> next(collectives(line)).sent
    64.0
    """
    for line in text.splitlines():
        call = CALL.search(line)
        if call is None:
            continue
        shapes, size = [], 0
        for name, bits, numbers in ARRAY.findall(call[1]):
            shapes.append(tuple(int(number) for number in numbers.split(",") if number))
            size += math.prod(shapes[-1]) * (1 if name == "pred" else int(bits) // 8)
        scope = SCOPE.search(line)
        yield Collective(
            call[2], tuple(shapes), _participants(line), size, scope[1] if scope else ""
        )


def _participants(line: str) -> int:
    """The size of a group of devices, which XLA writes in three ways, and pairs in a fourth."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]<=", line)
    if counted:
        return int(counted[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", line)
    if named:
        sizes = dict(axis.split("=") for axis in named[1].split(","))
        return math.prod(int(sizes[axis.strip()]) for axis in named[2].split(","))
    return 2  # source_target_pairs


def sent_per_block(rows: int, length: int, hidden_dim: int, devices: int, itemsize: int = 4) -> int:
    """Bytes that each device sends in the forward pass of one block whose heads are shared out.

    Two all-reduces of the residual stream, after attention and after the feed-forward network. In a
    ring each takes `2 * (devices - 1) / devices` of its size. The backward pass sums five arrays of
    that size, joined in two operations: XLA's CPU compiler sums the gradients of the inputs of
    query, key, value, gate and up before it adds them. Two would do.

    Args:
        rows: rows of the batch on one device.
        length: tokens in a row.
        hidden_dim: D.
        devices: how many share the heads.
        itemsize: bytes of a number.

    >>> sent_per_block(1, 4096, 4096, 8, itemsize=2) / 2**20  # Mistral 7B in bfloat16: MiB
    112.0
    """
    return 4 * rows * length * hidden_dim * itemsize * (devices - 1) // devices
