"""Golden files: random weights that anyone can make again, and reading the files.

A golden file holds what an independent implementation computed: hidden states, gradients, tokens.
It does not hold the weights. They come from `random_weights`, which both the script that wrote the
file and the tests that read it call with the seed that the file names.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "backbone"

# Kernels have this standard deviation times 1 / sqrt(inputs). Values above 1 spread the attention
# scores over a few units; a standard initialisation hardly notices a wrong window or wavelength.
GAINS = {"query": 1.4, "key": 1.4, "gate": 1.4, "up": 1.4}


@dataclass(frozen=True)
class Golden:
    """One golden file: its configuration and its arrays.

    Attributes:
        name: the file's name without `.npz`.
        config: constructor arguments of `MistralBackbone`.
        seed: seed of `random_weights` and `random_cotangent`.
        gains: argument of `random_weights`.
        arrays: every other array in the file, by name.
    """

    name: str
    config: dict
    seed: int
    gains: dict[str, float]
    arrays: dict[str, np.ndarray] = field(repr=False)

    @property
    def token_ids(self) -> np.ndarray:
        return self.arrays["token_ids"].astype("int32")

    @property
    def padding_mask(self) -> np.ndarray:
        return self.arrays["padding_mask"]

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """What a backbone is called with."""
        return {"token_ids": self.token_ids, "padding_mask": self.padding_mask}

    def weights(self) -> dict[str, np.ndarray]:
        """The weights that the peers had, float32."""
        return random_weights(self.config, self.seed, self.gains)

    def cotangent(self) -> np.ndarray:
        """What the logits are multiplied with in the scalar loss, (B, S, V)."""
        return random_cotangent(self.padding_mask, self.config["vocabulary_size"], self.seed)

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient of the scalar loss for every weight."""
        prefix = "gradients/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def bfloat16(self, name: str) -> np.ndarray:
        """An array that the file stores as bfloat16 bits, as float32."""
        return (self.arrays[name].astype("uint32") << 16).view("float32")


def names() -> list[str]:
    """The golden files that exist, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def load(name: str, folder: Path = FOLDER) -> Golden:
    """Reads one golden file."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    description = json.loads(str(arrays.pop("description")))
    return Golden(name, arrays=arrays, **description)


def save(golden: Golden, folder: Path = FOLDER) -> Path:
    """Writes one golden file."""
    description = {"config": golden.config, "seed": golden.seed, "gains": golden.gains}
    path = folder / f"{golden.name}.npz"
    np.savez_compressed(path, description=json.dumps(description), **golden.arrays)
    return path


def head_dim(config: dict) -> int:
    """The head size h of a configuration."""
    return config.get("head_dim") or config["hidden_dim"] // config["num_query_heads"]


def weight_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight; kernels are (inputs, outputs)."""
    vocabulary_size, hidden_dim = config["vocabulary_size"], config["hidden_dim"]
    intermediate_dim = config["intermediate_dim"]
    query_dim = config["num_query_heads"] * head_dim(config)
    key_value_dim = config["num_key_value_heads"] * head_dim(config)
    shapes = {"embeddings": (vocabulary_size, hidden_dim)}
    if not config.get("tie_word_embeddings"):
        shapes["reverse_embeddings"] = (hidden_dim, vocabulary_size)
    for index in range(config["num_layers"]):
        layer = {
            "attention_norm": (hidden_dim,),
            "query": (hidden_dim, query_dim),
            "key": (hidden_dim, key_value_dim),
            "value": (hidden_dim, key_value_dim),
            "output": (query_dim, hidden_dim),
            "feedforward_norm": (hidden_dim,),
            "gate": (hidden_dim, intermediate_dim),
            "up": (hidden_dim, intermediate_dim),
            "down": (intermediate_dim, hidden_dim),
        }
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes | {"final_norm": (hidden_dim,)}


def random_weights(
    config: dict, seed: int, gains: dict[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Weights of a configuration, the same ones on every machine.

    Args:
        config: constructor arguments of `MistralBackbone`.
        seed: int.
        gains: factors by the last part of a weight's name, over `GAINS`; 1.0 where neither has it.

    Returns:
        float32 arrays by name, shapes of `weight_shapes`. Kernels and embeddings are uniform with
        mean 0, the scales of norms uniform in [0.5, 1.5).

    >>> config = dict(
    ...     vocabulary_size=5,
    ...     num_layers=1,
    ...     num_query_heads=2,
    ...     hidden_dim=4,
    ...     intermediate_dim=3,
    ...     num_key_value_heads=1,
    ... )
    >>> random_weights(config, seed=1)["layers.0.key"].shape
    (4, 2)
    """
    gains = GAINS | (gains or {})
    bits = np.random.PCG64(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        uniform = _uniform(bits, shape)
        last = name.split(".")[-1]
        if last.endswith("norm"):
            weights[name] = (uniform + 0.5).astype("float32")
            continue
        inputs = 1 if last == "embeddings" else shape[0]
        deviation = gains.get(last, 1.0) / np.sqrt(inputs)
        weights[name] = ((uniform - 0.5) * np.sqrt(12.0) * deviation).astype("float32")
    return weights


def random_cotangent(padding_mask: np.ndarray, vocabulary_size: int, seed: int) -> np.ndarray:
    """A random direction for logits, (B, S, V) float32: 0 at padding, divided by the tokens."""
    uniform = _uniform(np.random.PCG64(seed + 1000), (*padding_mask.shape, vocabulary_size))
    cotangent = (uniform - 0.5) * np.sqrt(12.0) * padding_mask[..., None] / padding_mask.sum()
    return cotangent.astype("float32")


def random_token_ids(shape: tuple[int, ...], vocabulary_size: int, seed: int) -> np.ndarray:
    """Token ids in [1, vocabulary_size), int32: id 0 is left to padding."""
    uniform = _uniform(np.random.PCG64(seed + 2000), shape)
    return (1 + uniform * (vocabulary_size - 1)).astype("int32")


def _uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [0, 1). NumPy keeps PCG64's raw bits for ever, but not what Generator makes."""
    raw = bits.random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)
