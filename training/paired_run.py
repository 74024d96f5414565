"""One run of a comparison, with its curve (chapter 13, "Training a Mistral from nothing").

The batches depend on the seed alone, so that the runs of one seed can be compared in pairs. A run
that was interrupted goes on from a checkpoint that is at most a minute old.
"""

import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from measure import padded_rows, row_bits
from paired_text import Sequences, Text
from variants import Settings, Variant, build_optimizer, build_variant

POINTS = 20  # of a curve
SECONDS = 45  # between two checkpoints
FIRST_STEPS = (0, 1, 3, 7, 15, 31, 63, 127)  # at which the gradient of each part is kept


def train(settings: Settings, text: Text, checkpoint: Path, show: Callable = print) -> dict:
    """Trains a variant to the end, or until its loss is no number, and judges it on the way.

    Args:
        settings: of the run.
        text: what is read, and what judges.
        checkpoint: a file from which the run goes on if there is one, and which it writes.
        show: called with a line at each point of the curve.

    Returns:
        What the records keep of a run, as `README.md` lists it.

    Raises:
        ValueError: the checkpoint is of another run.
    """
    model = build_variant(settings)
    optimizer = build_optimizer(settings, model)
    step, judge = make_step(model, optimizer), make_judge(model, settings, text)
    sequences = Sequences(text.training, settings.length, settings.seed)
    identity = json.loads(json.dumps({**asdict(settings), **text.description}))
    values = [[v.value for v in each.variables] for each in (model, optimizer)]
    run = {"step": 0, "cpu_seconds": 0.0, "batches": 0, "curve": [], "first_gradient_norms": []}
    run |= {"losses": [], "norms": []}  # since the last point of the curve
    if checkpoint.exists():
        values, run = load(checkpoint, identity)

    between, saved, began = settings.steps // POINTS, time.monotonic(), time.process_time()
    while run["step"] < settings.steps:
        token_ids = sequences.batch(run["step"], settings.batch_size)
        *values, loss, norms = step(*values, token_ids)
        run["losses"].append(float(loss))
        run["norms"].append(float(jnp.linalg.norm(norms)))
        if not np.isfinite(run["losses"][-1] + run["norms"][-1]):
            break
        if run["step"] in FIRST_STEPS:
            run["first_gradient_norms"].append([_short(norm) for norm in norms.tolist()])
        run["batches"] = zlib.crc32(token_ids.tobytes(), run["batches"])
        run["step"] += 1
        if run["step"] % between == 0:
            groups = text.group_bits_per_byte(judge(values[0]))
            run["curve"].append(_point(run, text, groups))
            run |= {"losses": [], "norms": [], "groups": [round(x, 4) for x in groups.tolist()]}
            show(f"{run['curve'][-1]}")
        if time.monotonic() - saved > SECONDS:
            run["cpu_seconds"] += time.process_time() - began
            save(checkpoint, identity, values, run)
            saved, began = time.monotonic(), time.process_time()
    run["cpu_seconds"] += time.process_time() - began
    return _kept(run, settings, model)


def make_step(model: Variant, optimizer: keras.optimizers.Optimizer) -> Callable:
    """One step of training, compiled.

    Returns:
        A function of weights, optimizer variables and token ids (B, S + 1), which returns the new
        weights and variables, the loss, and the norm of each part's gradient (before clipping), in
        the order of `parts`.
    """
    names = parts(model)
    part_of = jnp.array([names.index(_part(variable)) for variable in model.trainable_variables])

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, variables, token_ids):
        def loss(weights):
            logits, _ = model.stateless_call(weights, [], token_ids[:, :-1])
            right = jnp.take_along_axis(logits, token_ids[:, 1:, None], axis=-1)[..., 0]
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - right)

        value, gradients = jax.value_and_grad(loss)(weights)
        squares = jnp.stack([jnp.sum(jnp.square(gradient)) for gradient in gradients])
        weights, variables = optimizer.stateless_apply(variables, gradients, weights)
        norms = jnp.sqrt(jax.ops.segment_sum(squares, part_of, len(names)))
        return weights, variables, value, norms

    return step


def make_judge(model: Variant, settings: Settings, text: Text) -> Callable:
    """A function of weights, which returns the bits of each held-out document."""
    rows = list(padded_rows(text.held_out, settings.length, settings.length))

    @jax.jit
    def bits(weights, token_ids, scored):
        logits, _ = model.stateless_call(weights, [], token_ids[:, :-1])
        return row_bits(logits, token_ids, scored)

    def judge(weights):
        total = np.zeros(len(text.held_out))
        for owners, token_ids, _, scored in rows:  # a causal model needs no mask for what follows
            costs = np.asarray(bits(weights, token_ids, scored))
            np.add.at(total, owners, costs[: len(owners)])
        return total

    return judge


def parts(model: Variant) -> list[str]:
    """What gradients are told apart by: the embedding, each block, and what makes the logits."""
    return ["embedding", *(block.name for block in model.blocks), "output"]


def _part(variable: keras.Variable) -> str:
    name = variable.path.split("/")[1]
    if name.startswith("transformer_layer"):
        return name
    return "embedding" if variable.path.endswith("/embeddings") else "output"


def save(checkpoint: Path, identity: dict, values: list, run: dict):
    """Writes a checkpoint; a crash leaves the old one whole."""
    arrays = {
        f"{kind}_{index}": np.asarray(value)
        for kind, several in zip(("weight", "variable"), values, strict=True)
        for index, value in enumerate(several)
    }
    written = checkpoint.with_suffix(".partial.npz")
    np.savez(written, run=np.array(json.dumps({"identity": identity, **run})), **arrays)
    os.replace(written, checkpoint)


def load(checkpoint: Path, identity: dict) -> tuple[list, dict]:
    """The weights, the optimizer's variables and the state of an interrupted run.

    Raises:
        ValueError: the checkpoint is of another run.
    """
    with np.load(checkpoint) as arrays:
        run = json.loads(str(arrays["run"]))
        found = run.pop("identity")
        if found != identity:
            names = sorted(name for name in identity if found.get(name) != identity[name])
            raise ValueError(
                f"{checkpoint} must be of the run that goes on, but it differs in "
                f"{', '.join(names)}. Remove it to start that run again."
            )
        values = [
            [jnp.asarray(arrays[name]) for name in arrays if name.startswith(kind)]
            for kind in ("weight_", "variable_")
        ]
    return values, run


def _point(run: dict, text: Text, groups: np.ndarray) -> dict:
    nats_per_token = np.mean(run["losses"])
    bits = np.average(groups, weights=text.description["held_out_group_bytes"])
    return {
        "step": run["step"],
        "held_out": round(float(bits), 4) if np.isfinite(bits) else None,
        "training": round(float(nats_per_token / np.log(2) / text.bytes_per_token), 4),
        "gradient_norm": _short(np.mean(run["norms"])),
        "largest_gradient_norm": _short(np.max(run["norms"])),
    }


def _kept(run: dict, settings: Settings, model: Variant) -> dict:
    curve = run["curve"]
    finished = run["step"] == settings.steps and curve[-1]["held_out"] is not None
    return {
        "parameters": model.count_params(),
        "held_out_bits_per_byte": curve[-1]["held_out"] if finished else None,
        "held_out_groups": run["groups"] if finished else None,
        "batches": run["batches"] if finished else None,
        "steps": run["step"],
        "cpu_seconds": round(run["cpu_seconds"]),
        "curve": {name: [point[name] for point in curve] for name in curve[0]} if curve else {},
        "first_gradient_norms": run["first_gradient_norms"],
    }


def _short(number: float) -> float:
    return float(f"{number:.3g}")
