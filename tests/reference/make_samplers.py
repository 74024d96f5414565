"""Writes the golden file of samplers: what KerasHub's samplers and `MistralCausalLM` write.

The ordinary tests read the file. To make it again, in the folder `tests`, in the environment that
`make_reference.py` describes:

    ../.venv-peers/bin/python -m reference.make_samplers

The model is that of the golden file `generation`.
"""

import numpy as np

from . import golden, peers
from .make_reference import GENERATION, GENERATION_SEED, check_versions

FILE = golden.FOLDER.with_name("samplers.npz")
WIDTH, STOP = 20, 11

# Names and arguments, the same in KerasHub and here.
SAMPLERS = {
    "greedy": ("GreedySampler", {}),
    "random": ("RandomSampler", {"seed": 3, "temperature": 0.7}),
    "top_k": ("TopKSampler", {"k": 4, "seed": 5}),
    "top_p": ("TopPSampler", {"p": 0.6, "seed": 1, "temperature": 1.5}),
    "top_p_of_k": ("TopPSampler", {"p": 0.9, "k": 6, "seed": 2}),
    "beam": ("BeamSampler", {"num_beams": 3}),
    "warm_beam": ("BeamSampler", {"num_beams": 4, "temperature": 2.0}),
    "contrastive": ("ContrastiveSampler", {"k": 4, "alpha": 0.4}),
}


def make_prompts() -> dict[str, np.ndarray]:
    """Two prompts of other lengths, padded to `WIDTH`."""
    random = np.random.default_rng(0)
    token_ids = np.zeros((2, WIDTH), "int32")
    mask = np.arange(WIDTH) < np.array([[4], [7]])
    token_ids[mask] = random.integers(1, GENERATION["vocabulary_size"], mask.sum())
    return {"token_ids": token_ids, "padding_mask": mask}


def forbidding(base: type) -> type:
    """A subclass of a `Sampler` that takes the likeliest token among every other one."""

    class Forbidding(base):
        def get_next_token(self, probabilities):
            allowed = np.arange(probabilities.shape[-1]) % 2 == 0
            return (probabilities * allowed).argmax(axis=-1)

    return Forbidding


def main() -> None:
    check_versions()
    import keras_hub

    weights = golden.random_weights(GENERATION, GENERATION_SEED)
    model = keras_hub.models.MistralCausalLM(peers.keras_hub_model(GENERATION, weights))
    prompts, arrays = make_prompts(), {}
    samplers = {
        name: lambda kind=kind, arguments=arguments: getattr(keras_hub.samplers, kind)(**arguments)
        for name, (kind, arguments) in SAMPLERS.items()
    }
    samplers["forbidding"] = forbidding(keras_hub.samplers.Sampler)
    for name, make in samplers.items():
        for stop in (None, (STOP,)):
            model.compile(sampler=make())
            for call in range(2):
                written = model.generate(dict(prompts), stop_token_ids=stop)
                key = f"{name}/{'stopped' if stop else 'whole'}/{call}"
                arrays[key] = written["token_ids"].astype("int16")
                arrays[f"{key}/mask"] = written["padding_mask"]
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
