"""Trains `mistral_tiny_en` (chapter 13, "Training a Mistral from nothing").

    python training/train_tiny.py --out checkpoints/tiny

reads the text that comes with Python, trains a vocabulary and a model, and writes the preset
`mistral_tiny_en` and `record.json` into the folder. Started again, it goes on from the last
checkpoint.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from batches import Batches
from measure import bits_per_byte, document_bits
from record import describe_run
from short_blocks import short_blocks
from tqdm import tqdm
from vocabulary import encode, train_vocabulary

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.layers.attention import PATHS
from mistral_lib.teaching import corpus


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a run ends, apart from the text."""

    steps: int = 4000
    batch_size: int = 16
    length: int = 256
    vocabulary_size: int = 2048
    num_layers: int = 6
    num_query_heads: int = 6
    num_key_value_heads: int = 2
    hidden_dim: int = 192
    intermediate_dim: int = 512
    sliding_window: int = 128
    peak_learning_rate: float = 3e-3
    final_fraction: float = 0.01
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta_2: float = 0.98
    global_clipnorm: float = 1.0
    evaluate_every: int = 200
    seed: int = 0


def build_model(settings: Settings) -> MistralCausalLM:
    """The model, compiled with its loss and its optimizer."""
    keras.utils.set_random_seed(settings.seed)
    backbone = MistralBackbone(
        vocabulary_size=settings.vocabulary_size,
        num_layers=settings.num_layers,
        num_query_heads=settings.num_query_heads,
        hidden_dim=settings.hidden_dim,
        intermediate_dim=settings.intermediate_dim,
        num_key_value_heads=settings.num_key_value_heads,
        sliding_window=settings.sliding_window,
    )
    if jax.default_backend() == "cpu":
        PATHS["short_blocks"] = short_blocks
        backbone.attention_path = "short_blocks"
    model = MistralCausalLM(backbone)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=settings.peak_learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_steps=max(1, settings.steps - settings.warmup_steps),
        alpha=settings.final_fraction,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=settings.weight_decay,
        beta_2=settings.beta_2,
        global_clipnorm=settings.global_clipnorm,
    )
    optimizer.exclude_from_weight_decay(var_names=["scale"])
    model.compile(optimizer=optimizer, loss=model.loss)
    optimizer.build(model.trainable_variables)
    return model


class Checkpoint:
    """A folder that holds the state of a run: variables, step and loss curve, in one file.

    Args:
        folder: where `checkpoint.npz` lies or will lie.
        identity: what must be equal for a run to go on from it.
    """

    def __init__(self, folder: Path, identity: dict):
        self.path = folder / "checkpoint.npz"
        self.identity = json.loads(json.dumps(identity))

    def save(self, model: keras.Model, state: dict):
        variables = _variables(model)
        arrays = {f"variable_{i}": np.asarray(v.value) for i, v in enumerate(variables)}
        text = json.dumps({"identity": self.identity, **state})
        partial = self.path.with_suffix(".partial.npz")
        np.savez(partial, state=np.array(text), **arrays)
        os.replace(partial, self.path)  # a crash leaves the old checkpoint whole

    def load(self, model: keras.Model) -> dict | None:
        """Puts the saved variables into the model; returns the state, or `None` without a file.

        Raises:
            ValueError: the checkpoint is of a run with other settings or another text.
        """
        if not self.path.exists():
            return None
        with np.load(self.path) as arrays:
            state = json.loads(str(arrays["state"]))
            found = state.pop("identity")
            if found != self.identity:
                names = sorted(k for k in self.identity if found.get(k) != self.identity[k])
                raise ValueError(
                    f"{self.path} belongs to another run: {', '.join(names)} differ. Give another "
                    "--out, or remove the file to start again."
                )
            for i, variable in enumerate(_variables(model)):
                variable.assign(arrays[f"variable_{i}"])
        return state


def _variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


class Bar(keras.callbacks.Callback):
    """Shows the loss and the training bits per byte while `fit` runs."""

    def __init__(self, bar: tqdm, bytes_per_token: float):
        super().__init__()
        self.bar = bar
        self.bytes_per_token = bytes_per_token

    def on_train_batch_end(self, batch, logs=None):
        bits = logs["loss"] / np.log(2) / self.bytes_per_token
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, bits/byte {bits:.3f}")
        self.bar.update()


def train(settings: Settings, text: corpus.Corpus, out: Path, stop_at: int | None = None):
    """Trains, or goes on training, and saves a checkpoint at every evaluation.

    Args:
        settings: of the run.
        text: what to learn from, and what to be judged on.
        out: folder of the checkpoint and the vocabulary.
        stop_at: step at which to leave early, as if interrupted; `None` for the last one.

    Returns:
        The model, the vocabulary and the state: `step`, `seconds` and `curve`.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = [document.text for document in text.training]
    vocabulary = train_vocabulary(texts, settings.vocabulary_size)
    (out / "vocabulary.spm").write_bytes(vocabulary)
    batches = Batches(
        encode(vocabulary, texts), settings.batch_size, settings.length, settings.seed
    )
    sample = [document.text for document in text.held_out[::10]]
    sample_ids = encode(vocabulary, sample)

    model = build_model(settings)
    checkpoint = Checkpoint(
        out,
        {
            **asdict(settings),
            "training_text": corpus.fingerprint(text.training),
            "held_out_text": corpus.fingerprint(text.held_out),
        },
    )
    state = checkpoint.load(model) or {"step": 0, "seconds": 0.0, "curve": []}
    bytes_per_token = sum(len(text.encode()) for text in texts) / batches.num_tokens
    last = settings.steps if stop_at is None else stop_at
    with tqdm(total=settings.steps, initial=state["step"], unit="step", mininterval=10) as bar:
        while state["step"] < last:
            began = time.perf_counter()
            stop = min(state["step"] + settings.evaluate_every, last)
            history = model.fit(
                batches(state["step"], stop),
                steps_per_epoch=stop - state["step"],
                callbacks=[Bar(bar, bytes_per_token)],
                shuffle=False,
                verbose=0,
            )
            loss = history.history["loss"][0]
            bits = document_bits(model, sample_ids, settings.length, settings.sliding_window)
            point = {
                "step": stop,
                "loss": round(loss, 4),
                "training_bits_per_byte": round(float(loss / np.log(2) / bytes_per_token), 4),
                "held_out_bits_per_byte": round(bits_per_byte(bits, sample), 4),
            }
            tqdm.write(f"{point}")
            state["curve"].append(point)
            state["step"] = stop
            state["seconds"] += time.perf_counter() - began
            checkpoint.save(model, state)
    return model, vocabulary, state


def save_preset(model: MistralCausalLM, vocabulary: bytes, settings: Settings, folder: Path):
    """Saves the model in bfloat16, with its tokenizer, in the layout that `from_preset` reads."""
    config = {**model.backbone.get_config(), "dtype": "bfloat16", "name": "mistral_backbone"}
    config.pop("settings", None)  # the attention path of training
    backbone = MistralBackbone(**config)
    for variable, trained in zip(backbone.variables, model.backbone.variables, strict=True):
        variable.assign(trained.value)
    preprocessor = MistralCausalLMPreprocessor(
        MistralTokenizer(vocabulary), sequence_length=settings.length
    )
    stored = MistralCausalLM(backbone, preprocessor, name="mistral_causal_lm")
    stored.save_to_preset(folder)


def main(arguments: list[str] | None = None):
    """Trains, evaluates and writes the record; `--help` lists the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("checkpoints/mistral_tiny_en"))
    parser.add_argument("--packages", nargs="*", default=list(corpus.PACKAGES))
    parser.add_argument("--stop-at", type=int, help="step at which to end the run early")
    for field in fields(Settings):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default)
    options = vars(parser.parse_args(arguments))
    out, packages, stop_at = (options.pop(name) for name in ("out", "packages", "stop_at"))
    settings = Settings(**options)

    text = corpus.build_corpus(packages)
    model, vocabulary, state = train(settings, text, out, stop_at)
    record = describe_run(settings, text, model, vocabulary, state)
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    save_preset(model, vocabulary, settings, out / "mistral_tiny_en")
    print(json.dumps({k: v for k, v in record.items() if k != "curve"}, indent=1))


if __name__ == "__main__":
    main()
