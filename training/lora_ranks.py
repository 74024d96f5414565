"""What the rank of a LoRA buys, and what it costs (chapter 14, "LoRA").

    python training/lora_ranks.py

teaches the shipped model to write telegrams: once for each rank, choice of layers and scale, and
with all weights trained; each at several learning rates, and from three seeds at the best one. It
writes into the record that the chapter reads what held-out texts cost afterwards, as telegrams and
as they are. It takes about an hour on two cores that have nothing else to do. The record is written
after each run, and runs that it has already, of the same text and settings, are not made again.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

from mistral_lib import MistralCausalLM, lora
from mistral_lib.teaching import corpus, interventions, measures, panel, telegrams
from mistral_lib.teaching.lora_runs import ALL, FEW, RECORD

SEEDS = (0, 1, 2)  # the first one at every rate that is tried, all at the best one
RATES = tuple(5e-3 * 2.0**k for k in range(-6, 5))
UNREAD = 64  # examples that a run does not train on, by which a rate is chosen
DIRECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
FULL = 0  # the rank of a run that trains every weight, without LoRA


@dataclass(frozen=True)
class Settings:
    """One run. The defaults are those of the chapter; `rank` 0 trains every weight, without LoRA.

    As many examples are read as there are steps of a batch; `seed` draws and orders them. The
    update is scaled by `scale`, which is alpha / rank. The loss counts the labels of `mask`: those
    of the "answers", the same without the first of each ("late"), or "all".
    """

    rank: int = 8
    scale: float = 1.0
    targets: tuple[str, ...] = ALL
    learning_rate: float = 5e-3
    steps: int = 60
    batch_size: int = 16
    length: int = 80
    seed: int = 0
    mask: str = "answers"


VARIED = ("rank", "scale", "targets", "learning_rate", "seed", "mask")
RS, FIXED = (8 / 64) ** 0.5, 8 / 64  # alpha / sqrt(r) and alpha / r at rank 64, if both are 1 at 8
# What is compared, each with the learning rate around which the search begins. First comes what the
# chapter rests on, so that a record that is not finished can be read, too.
GROUPS: tuple[tuple[Settings, ...], ...] = (
    (
        Settings(rank=8),
        Settings(rank=FULL, learning_rate=6.25e-4),
        Settings(rank=64, learning_rate=1.25e-3),
        Settings(rank=64, targets=FEW),
        Settings(rank=1, learning_rate=1e-2),
    ),
    (
        Settings(rank=64, scale=RS, learning_rate=2.5e-3),
        Settings(rank=64, scale=FIXED, learning_rate=1e-2),
    ),
    (
        Settings(rank=16, learning_rate=2.5e-3),
        Settings(rank=1, targets=FEW, learning_rate=1e-2),
        Settings(rank=4),
    ),
)
# After the first, second and third group, with all seeds.
ALSO: tuple[tuple[Settings, ...], ...] = (
    (
        *(Settings(mask=mask) for mask in ("answers", "late", "all")),
        Settings(rank=FULL, learning_rate=3.125e-4),
    ),
    tuple(Settings(rank=64, scale=scale) for scale in (1.0, RS, FIXED)),
    (),
)


def varied(run: Settings | dict) -> dict:
    """What tells a run from others."""
    fields = run if isinstance(run, dict) else asdict(run)
    found = {name: fields[name] for name in VARIED}
    return found | {"targets": list(found["targets"]), "scale": round(found["scale"], 6)}


def best_rate(variant: Settings, runs: Sequence[dict]) -> float:
    """The rate at which the first seed's unread examples cost least."""
    tried = [run for run in runs if _differs(run, variant, "learning_rate")]
    return min(tried, key=lambda run: run["unread"])["learning_rate"]


def next_rate(variant: Settings, runs: Sequence[dict]) -> Settings | None:
    """The next learning rate of a variant: on, until the best one lies between two others.

    Args:
        variant: its settings, with the rate at which the search begins.
        runs: those that have been made.

    Returns:
        The settings; `None` if the best rate is known.
    """
    done = {run["learning_rate"] for run in runs if _differs(run, variant, "learning_rate")}
    best = best_rate(variant, runs) if done else variant.learning_rate
    place = RATES.index(best)
    for rate in (best, *RATES[place + 1 : place + 2], *RATES[max(place - 1, 0) : place]):
        if rate not in done:
            return replace(variant, learning_rate=rate, seed=SEEDS[0])
    return None


def next_run(variant: Settings, runs: Sequence[dict]) -> Settings | None:
    """The next run of a variant: rates first, then the other seeds; `None` if it is complete."""
    if (settings := next_rate(variant, runs)) is not None:
        return settings
    return next_seed(replace(variant, learning_rate=best_rate(variant, runs)), runs)


def next_seed(settings: Settings, runs: Sequence[dict]) -> Settings | None:
    """The same settings with the next seed; `None` if there are runs with all of them."""
    made = [run["seed"] for run in runs if _differs(run, settings, "seed")]
    left = [seed for seed in SEEDS if seed not in made]
    return replace(settings, seed=left[0]) if left else None


def _differs(run: dict, settings: Settings, name: str) -> bool:
    """Whether a run has these settings but for one field, and the first seed but for the seed."""
    return run | {name: None} == run | varied(settings) | {name: None}


def training_rows(examples: list[telegrams.Example], settings: Settings, preprocessor):
    """The rows of a run, in the order in which it reads them, and the examples that it leaves.

    Raises:
        ValueError: there are fewer examples than the run reads.
    """
    count = settings.steps * settings.batch_size
    if count > len(examples):
        raise ValueError(
            f"{settings.steps} steps of {settings.batch_size} need {count} examples; there are "
            f"{len(examples)}. Take fewer steps or more text."
        )
    order = np.random.default_rng(settings.seed).permutation(len(examples))
    chosen, left = [[examples[i] for i in part] for part in np.split(order, [count])]
    pairs = [(example.question, example.answer) for example in chosen]
    x, y, weights = telegrams.answer_rows(preprocessor, pairs, settings.length)
    if settings.mask == "late":
        weights = weights & np.roll(weights, 1, axis=1)
    elif settings.mask == "all":
        weights = np.ones_like(weights)
    return (x, y, weights), left[:UNREAD]


def prepare(settings: Settings) -> MistralCausalLM:
    """The shipped model with the LoRA and the optimizer of a run."""
    keras.utils.set_random_seed(settings.seed)
    model = MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")
    if settings.rank:
        alpha = settings.scale * settings.rank
        model.backbone.enable_lora(settings.rank, settings.targets, alpha)
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), loss=model.loss)
    return model


def costs(model, examples: list[telegrams.Example], length: int, style: str) -> list[float]:
    """The bits of each example's answer, as a telegram ("answer") or as it was ("plain")."""
    pairs = [(example.question, getattr(example, style)) for example in examples]
    rows = telegrams.answer_rows(model.preprocessor, pairs, length)
    return [round(float(cost), 1) for cost in telegrams.bits(model, rows)]


def sizes(examples: list[telegrams.Example], style: str) -> list[int]:
    """The bytes of each example's answer."""
    return [len(getattr(example, style).encode()) for example in examples]


def judge(model: MistralCausalLM, examples: list[telegrams.Example], length: int) -> dict:
    """Bits of held-out answers in both styles, and of the panel's documents, text by text."""
    documents = panel.documents(model.preprocessor.tokenizer).half("confirm")
    of_documents = measures.bits(interventions.read(model, documents), documents)
    return {
        "answer": costs(model, examples, length, "answer"),
        "plain": costs(model, examples, length, "plain"),
        "documents": [round(float(cost), 1) for cost in of_documents],
    }


def manner(model: MistralCausalLM, examples: list[telegrams.Example]) -> dict:
    """Which answers of the model begin like a telegram, and the words that one would leave out."""
    questions = [example.question for example in examples]
    answers = model.generate(questions, max_new_tokens=40, strip_prompt=True)
    return {
        "begins": [int(answer.startswith(telegrams.OPENER)) for answer in answers],
        "left_in": [len(telegrams.LEFT_OUT.findall(answer)) for answer in answers],
    }


def changes_of(model: MistralCausalLM, base: MistralCausalLM) -> dict[str, np.ndarray]:
    """The change of each kernel by training, by its path, whether LoRA made it or not."""
    found, before = {}, lora.projections(base.backbone)
    for path, layer in lora.projections(model.backbone).items():
        change = np.asarray(layer.kernel.value) - np.asarray(before[path].kernel.value)
        if layer.lora_enabled:
            a, b = (np.asarray(factor.value) for factor in layer.lora_factors())
            change = change + layer.lora_scale * (a @ b)
        found[path] = change
    return found


def spectrum(changes: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Which share of each kind's squared change lies in its first directions, over the blocks."""
    shares: dict[str, list] = {}
    for path, change in changes.items():
        powers = np.linalg.svd(change.astype("float64"), compute_uv=False) ** 2
        share = np.cumsum(powers)[np.minimum(DIRECTIONS, len(powers)) - 1] / powers.sum()
        shares.setdefault(path.rpartition("/")[2], []).append(share)
    return {kind: np.mean(of, axis=0).round(4).tolist() for kind, of in shares.items()}


@contextlib.contextmanager
def halved(model: MistralCausalLM, base: MistralCausalLM) -> Iterator[None]:
    """Takes half of every change away, for as long as it is entered."""
    kept = [np.array(variable.value) for variable in model.trainable_variables]
    old = {variable.path: variable for variable in base.variables}
    for variable in model.trainable_variables:
        if variable.name == "lora_kernel_b":
            variable.assign(variable.value / 2)
        elif variable.name != "lora_kernel_a":
            variable.assign((variable.value + old[variable.path].value) / 2)
    yield
    for variable, value in zip(model.trainable_variables, kept, strict=True):
        variable.assign(value)


def truncated(
    model: MistralCausalLM,
    base: MistralCausalLM,
    changes: dict[str, np.ndarray],
    score: Callable[[MistralCausalLM], list[float]],
) -> dict[str, list[float]]:
    """What telegrams cost if each kernel keeps only the first directions of its change.

    With 0 directions all kernels are the old ones; embeddings and norms keep what they learned.
    """
    found, before = {}, lora.projections(base.backbone)
    layers = lora.projections(model.backbone)
    trained = {path: np.array(layer.kernel.value) for path, layer in layers.items()}
    parts = {path: np.linalg.svd(change, full_matrices=False) for path, change in changes.items()}
    for rank in (0, *DIRECTIONS):
        for path, (left, strengths, right) in parts.items():
            change = (left[:, :rank] * strengths[:rank]) @ right[:rank]
            layers[path].kernel.assign(np.asarray(before[path].kernel.value) + change)
        found[str(rank)] = score(model)
    for path, kernel in trained.items():
        layers[path].kernel.assign(kernel)
    return found


class Sweep:
    """Trains runs from the shipped weights, judges them and keeps the record.

    Args:
        text: the examples' source; the held-out part judges.
        steps: of each run.
        known: an earlier record, from which runs of the same text and settings are taken.
        keep: is given the record after each run.
    """

    def __init__(
        self,
        text: corpus.Corpus,
        shared: Settings = Settings(),
        known: dict | None = None,
        keep: Callable[[dict], object] = lambda record: None,
    ):
        self.examples = telegrams.find_examples(text.training)
        self.held_out = telegrams.find_examples(text.held_out)
        self.base = MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")
        self.shared, self.keep = shared, keep
        self.began = time.perf_counter()
        documents = panel.documents(self.base.preprocessor.tokenizer).half("confirm")
        common = {
            "settings": {k: v for k, v in asdict(shared).items() if k not in VARIED},
            "examples": len(self.examples),
            "training_text": corpus.fingerprint(text.training),
            "held_out_text": corpus.fingerprint(text.held_out),
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in ("keras", "jax")},
            "directions": list(DIRECTIONS),
            "bytes": {
                "answer": sizes(self.held_out, "answer"),
                "plain": sizes(self.held_out, "plain"),
                "documents": documents.bytes.tolist(),
            },
        }
        usable = known is not None and known.items() >= common.items()
        before = judge(self.base, self.held_out, shared.length)
        runs = known["runs"] if known and usable else []
        before |= manner(self.base, self.held_out)
        self.record = common | {"before": before, "runs": runs}

    def run(self, settings: Settings) -> dict:
        """Makes a run, unless the record has it."""
        for run in self.record["runs"]:
            if run.items() >= varied(settings).items():
                return run
        model = prepare(settings)
        rows, left = training_rows(self.examples, settings, model.preprocessor)
        x, y, weights = rows
        model.fit(x, y, settings.batch_size, sample_weight=weights, shuffle=False, verbose=0)
        unread = costs(model, left, settings.length, "answer")
        run = varied(settings) | {
            "trained": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
            "unread": round(sum(unread) / max(sum(sizes(left, "answer")), 1), 4),
            **judge(model, self.held_out, settings.length),
        }
        with halved(model, self.base):
            run["half"] = judge(model, self.held_out, settings.length)
        if replace(settings, seed=0, mask="answers") == self.shared:
            run |= manner(model, self.held_out)
        if settings.rank in (FULL, 64):
            changes = changes_of(model, self.base)
            run["spectrum"] = spectrum(changes)
            if settings.rank == FULL:
                run["truncated"] = truncated(
                    model,
                    self.base,
                    changes,
                    lambda model: costs(model, self.held_out, settings.length, "answer"),
                )
        self.record["runs"].append(run)
        self.keep(self.record)
        costing = {k: round(sum(run[k]) / sum(self.record["bytes"][k]), 4) for k in COSTS}
        seconds = f"{time.perf_counter() - self.began:.0f} s"
        print(varied(settings), run["unread"], costing, seconds, flush=True)
        return run


COSTS = ("answer", "plain", "documents")


def written(record: dict) -> str:
    """The record as JSON, a run on one line."""
    runs = ",\n".join(f"  {json.dumps(run)}" for run in record["runs"])
    rest = json.dumps({k: v for k, v in record.items() if k != "runs"}, indent=1)
    rest = re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), rest)
    return rest[:-2] + f',\n "runs": [\n{runs}\n ]\n}}\n'


def main(arguments: list[str] | None = None):
    """Makes all runs and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    options = parser.parse_args(arguments)
    known = json.loads(options.out.read_text()) if options.out.exists() else None

    def keep(record):
        unfinished = options.out.with_suffix(".unfinished")
        unfinished.write_text(written(record))
        unfinished.replace(options.out)

    sweep = Sweep(corpus.build_corpus(packages=()), Settings(steps=options.steps), known, keep)
    for variants, also in zip(GROUPS, ALSO, strict=True):
        for find in (next_rate, next_run):
            for variant in variants:
                variant = replace(variant, steps=options.steps)
                while (settings := find(variant, sweep.record["runs"])) is not None:
                    sweep.run(settings)
        for settings in also:
            for seed in SEEDS:
                sweep.run(replace(settings, steps=options.steps, seed=seed))


if __name__ == "__main__":
    main()
