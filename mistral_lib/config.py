"""What a Mistral is: its sizes, checked once, and its weights (chapter 12, "The backbone")."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mistral_lib.checks import check_boolean, check_integer, check_number, check_range
from mistral_lib.rope_scaling import RopeScaling, check_rope_scaling

# Every weight of a backbone and its axes, a group of letters for each axis: V vocabulary, D hidden,
# F intermediate, H query heads, K key-value heads, h head size. "D Hh" is a matrix with a row for
# each hidden feature and a column for each feature of each query head. "{}" is a block's number. A
# name is the layer of the backbone, then attributes. File formats, layouts over devices and counts
# are derived from this table.
WEIGHTS = {
    "token_embedding.embeddings": "V D",
    "transformer_layer_{}.self_attention_layernorm.scale": "D",
    "transformer_layer_{}.self_attention.query.kernel": "D Hh",
    "transformer_layer_{}.self_attention.key.kernel": "D Kh",
    "transformer_layer_{}.self_attention.value.kernel": "D Kh",
    "transformer_layer_{}.self_attention.attention_output.kernel": "Hh D",
    "transformer_layer_{}.feedforward_layernorm.scale": "D",
    "transformer_layer_{}.feedforward.gate.kernel": "D F",
    "transformer_layer_{}.feedforward.up.kernel": "D F",
    "transformer_layer_{}.feedforward.down.kernel": "F D",
    "sequence_output_layernorm.scale": "D",
    "token_embedding.reverse_embeddings": "D V",
}
EMBEDDINGS = "token_embedding.embeddings"
OUTPUT = "token_embedding.reverse_embeddings"  # a weight of its own unless it is tied

# The argument that says how long an axis is; h is `head_dim` and D `hidden_dim`.
ARGUMENTS = {
    "V": "vocabulary_size",
    "D": "hidden_dim",
    "F": "intermediate_dim",
    "H": "num_query_heads",
    "K": "num_key_value_heads",
    "h": "head_dim",
}

# The arguments without a default, and what `MistralBackbone` takes beside the architecture.
SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_query_heads",
    "hidden_dim",
    "intermediate_dim",
    "num_key_value_heads",
)
OTHERS = ("dtype", "name", "trainable")

Windows = int | None | Sequence[int | None]


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a backbone.

    Attributes:
        name: its name, such as "transformer_layer_0.feedforward.gate.kernel".
        pattern: its name in `WEIGHTS`, with "{}" for the number of the block.
        block: the number of the block; 0 outside the blocks.
        axes: for each axis its letters, such as ("D", "Hh").
        shape: its shape.
    """

    name: str
    pattern: str
    block: int
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """Its path in Keras, with slashes."""
        return self.name.replace(".", "/")

    @property
    def layer(self) -> str:
        """The name without the last part: the layer of the backbone that has the weight."""
        return self.name.rpartition(".")[0]

    @property
    def attribute(self) -> str:
        """The last part of the name: "kernel", "scale", "embeddings" or "reverse_embeddings"."""
        return self.name.rpartition(".")[2]

    @property
    def in_block(self) -> bool:
        """Whether every block has such a weight."""
        return "{}" in self.pattern

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matrix, which alone are quantized, or the scale of a norm."""
        return len(self.axes) == 2


@dataclasses.dataclass(frozen=True, init=False)
class MistralConfig:
    """The architecture of a Mistral: every argument of `MistralBackbone` but name and dtype.

    It is checked when it is made, cannot be changed, and can be compared and hashed. For the
    arguments see `mistral_lib.MistralBackbone`.

    Attributes:
        sliding_window: the number of tokens that a query sees, its own included, or `None` for all;
            where the layers differ, a tuple with one entry a layer. `window` gives one layer's.
        head_dim: size of a head; `hidden_dim / num_query_heads` if it was not given.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong type; the message names
            it.

    >>> config = MistralConfig(10, 2, 4, 16, 32, 2, sliding_window=[3, None])
    >>> config.head_dim, config.window(0), config.window(1)
    (4, 3, None)
    >>> config.count_params()
    5008
    """

    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    hidden_dim: int
    intermediate_dim: int
    num_key_value_heads: int
    rope_max_wavelength: float
    rope_scaling_factor: float
    layer_norm_epsilon: float
    sliding_window: int | tuple[int | None, ...] | None
    dropout: float
    head_dim: int
    tie_word_embeddings: bool
    rope_scaling: RopeScaling | None

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        sliding_window: Windows = 512,
        dropout: float = 0,
        head_dim: int | None = None,
        tie_word_embeddings: bool = False,
        rope_scaling: Mapping[str, Any] | RopeScaling | None = None,
    ):
        sizes = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_query_heads": num_query_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "num_key_value_heads": num_key_value_heads,
        }
        # Where a position times a frequency, and a number over a norm, are finite in float32.
        ranges = {
            "rope_max_wavelength": (rope_max_wavelength, 1e-12, 1e30),
            "rope_scaling_factor": (rope_scaling_factor, 1e-12, 1e30),
            "layer_norm_epsilon": (layer_norm_epsilon, 1e-30, 1e30),
        }
        sizes = {name: check_integer(name, value) for name, value in sizes.items()}
        fields = {
            **sizes,
            **{name: check_range(name, *limits) for name, limits in ranges.items()},
            "sliding_window": _check_windows(sliding_window, sizes["num_layers"]),
            "dropout": _check_dropout(dropout),
            "head_dim": _check_heads(sizes, head_dim),
            "tie_word_embeddings": check_boolean("tie_word_embeddings", tie_word_embeddings),
        }
        fields["rope_scaling"] = check_rope_scaling(
            rope_scaling, fields["rope_scaling_factor"], fields["rope_max_wavelength"]
        )
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "MistralConfig":
        """The architecture in arguments of `MistralBackbone`, whatever else is among them.

        >>> sizes = dict(vocabulary_size=10, num_layers=2, num_query_heads=4, hidden_dim=16)
        >>> MistralConfig.from_arguments({**sizes, "num_key_value_heads": 2, "name": "small"})
        Traceback (most recent call last):
        TypeError: intermediate_dim must be an integer, but is None of type NoneType.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in arguments.items() if name in fields}
        return cls(**{**dict.fromkeys(SIZES), **given})

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make this config, for JSON.

        `sliding_window` is a list where the layers differ; `head_dim` is `None` where it follows
        from the other sizes; `rope_scaling` is a dictionary or `None`.

        >>> config = MistralConfig(10, 2, 4, 16, 32, 2, sliding_window=(3, None))
        >>> config.to_dict()["sliding_window"], config.to_dict()["head_dim"]
        ([3, None], None)
        >>> MistralConfig(**config.to_dict()) == config
        True
        """
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.sliding_window, tuple):
            arguments["sliding_window"] = list(self.sliding_window)
        if self.head_dim * self.num_query_heads == self.hidden_dim:
            arguments["head_dim"] = None
        if self.rope_scaling is not None:
            arguments["rope_scaling"] = self.rope_scaling.to_dict()
        return arguments

    def changed(self, **arguments: Any) -> "MistralConfig":
        """A config with other values of some arguments.

        >>> MistralConfig(10, 2, 4, 16, 32, 2).changed(num_layers=3).num_layers
        3
        """
        return MistralConfig(**{**self.to_dict(), **arguments})

    def window(self, layer: int) -> int | None:
        """The number of tokens that a query of one layer sees; `None` for all."""
        windows = self.sliding_window
        return windows[layer] if isinstance(windows, tuple) else windows

    @property
    def num_groups(self) -> int:
        """Query heads that share a key-value head, G = H / K."""
        return self.num_query_heads // self.num_key_value_heads

    def weights(self) -> Iterator[Weight]:
        """All weights of the model, from the embedding to the output."""
        yield self.weight(EMBEDDINGS)
        for block in range(self.num_layers):
            yield from (self.weight(pattern, block) for pattern in WEIGHTS if "{}" in pattern)
        yield self.weight("sequence_output_layernorm.scale")
        if not self.tie_word_embeddings:
            yield self.weight(OUTPUT)

    def kinds(self) -> Iterator[Weight]:
        """One weight of each kind: those outside the blocks, and those of the first block."""
        for pattern in WEIGHTS:
            if not (pattern == OUTPUT and self.tie_word_embeddings):
                yield self.weight(pattern)

    def weight(self, pattern: str, block: int = 0) -> Weight:
        """One weight: its pattern in `WEIGHTS`, and the number of its block."""
        axes = tuple(WEIGHTS[pattern].split())
        shape = tuple(math.prod(map(self.size, letters)) for letters in axes)
        return Weight(pattern.format(block), pattern, block, axes, shape)

    def size(self, letter: str) -> int:
        """The size that a letter of `WEIGHTS` stands for."""
        return getattr(self, ARGUMENTS[letter])

    def count_params(self) -> int:
        """Number of parameters, counted without making any."""
        return self.total(lambda weight: math.prod(weight.shape))

    def total(self, measure: Callable[[Weight], int]) -> int:
        """The sum of a measure over all weights; of the blocks, which are alike, one is looked at.

        >>> MistralConfig(10, 2, 4, 16, 32, 2).total(lambda weight: 1)
        21
        """
        return sum(
            measure(weight) * (self.num_layers if weight.in_block else 1) for weight in self.kinds()
        )


def check_names(names: Iterable[str]) -> None:
    """Refuses names that no argument of `MistralBackbone` has.

    >>> check_names(["hidden_dim", "hidden_size"])
    Traceback (most recent call last):
    TypeError: MistralBackbone has no argument 'hidden_size'. It takes vocabulary_size, ...
    """
    known = [field.name for field in dataclasses.fields(MistralConfig)]
    unknown = sorted(set(names) - {*known, *OTHERS})
    if unknown:
        raise TypeError(
            f"MistralBackbone has no argument {unknown[0]!r}. It takes {', '.join(known)}, dtype, "
            "name and trainable."
        )


def _check_windows(window, num_layers) -> int | tuple[int | None, ...] | None:
    """One window, or a tuple where the layers differ."""
    if window is None:
        return None
    if not isinstance(window, list | tuple):
        return check_integer("sliding_window", window)
    if len(window) != num_layers:
        raise ValueError(
            f"sliding_window must be one number, None, or one of these for each of the "
            f"{num_layers} layers, but has {len(window)} entries."
        )
    windows = tuple(
        None if each is None else check_integer(f"sliding_window[{index}]", each)
        for index, each in enumerate(window)
    )
    return windows if len(set(windows)) > 1 else windows[0]


def _check_dropout(dropout) -> float:
    rate = check_number("dropout", dropout, zero=True, below=1)
    return check_range("dropout", rate, 1e-30, 1 - 2**-20) if rate else rate


def _check_heads(sizes, head_dim) -> int:
    """The head size that the arguments ask for, or an error that names the two at odds."""
    heads, key_heads = sizes["num_query_heads"], sizes["num_key_value_heads"]
    if heads % key_heads:
        raise ValueError(
            f"num_query_heads ({heads}) must be a multiple of num_key_value_heads ({key_heads}): "
            "each key-value head serves a group of query heads."
        )
    if head_dim is None:
        if sizes["hidden_dim"] % heads:
            raise ValueError(
                f"hidden_dim ({sizes['hidden_dim']}) must be a multiple of num_query_heads "
                f"({heads}). For heads of another size, pass head_dim."
            )
        head_dim = sizes["hidden_dim"] // heads
    head_dim = check_integer("head_dim", head_dim)
    if head_dim % 2:
        raise ValueError(
            f"head_dim must be even, but is {head_dim}: rotary positions turn features in "
            "pairs. By default it is hidden_dim / num_query_heads."
        )
    return head_dim
