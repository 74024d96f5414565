"""Long lives of one model: after each event it agrees with a new one of the same weights."""

import signal
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from copies import COPIES, described
from doors import PROMPT, SIZES, X, Y, fill, fresh
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mistral_lib import MistralBackbone, MistralCausalLM, lora, without_weights
from mistral_lib.keras_inside import optimizer_weights

TARGETS = ["query", "value"]
EVENTS = 8  # in a life
LIVES = 5
SMALL = {**SIZES, "num_query_heads": 2, "num_key_value_heads": 2, "hidden_dim": 8}


def press_ctrl_c(*arguments, **logs):
    signal.raise_signal(signal.SIGINT)


PARTS = {
    "attention": lambda backbone: backbone.transformer_layers[0].self_attention,
    "feedforward": lambda backbone: backbone.transformer_layers[0].feedforward,
    "embedding": lambda backbone: backbone.token_embedding,
    "query": lambda backbone: backbone.transformer_layers[0].self_attention.query,
    "backbone": lambda backbone: backbone,
}


class Life(RuleBasedStateMachine):
    """One model, and whatever may happen to it."""

    def __init__(self):
        super().__init__()
        with without_weights():
            backbone = MistralBackbone(**SMALL)
        fill(backbone.variables)
        self.model = MistralCausalLM(backbone)
        self.folder = Path(tempfile.mkdtemp())
        self.saved = False

    @property
    def backbone(self):
        return self.model.backbone

    def adapted(self):
        return lora.settings(self.backbone) is not None

    @precondition(lambda self: not self.adapted())
    @rule(rank=st.sampled_from([2, 8]), alpha=st.sampled_from([1, 16]))
    def enable(self, rank, alpha):
        self.backbone.enable_lora(rank, TARGETS, alpha)
        fill([v for v in self.model.variables if "lora" in v.path])

    @precondition(adapted)
    @rule()
    def merge(self):
        self.backbone.merge_lora(dequantize=self.backbone.quantization is not None)

    @rule(kind=st.sampled_from(["int8", "int4/2", "int4/4"]))
    def quantize(self, kind):
        self.model.dequantize()
        if not (kind.startswith("int4") and not hasattr(keras.dtype_policies, "Int4DTypePolicy")):
            self.model.quantize(kind)

    @rule()
    def dequantize(self):
        self.model.dequantize()

    @rule(part=st.sampled_from([*PARTS]), trainable=st.booleans())
    def freeze(self, part, trainable):
        """With LoRA too, where a backbone freezes and thaws its factors."""
        PARTS[part](self.backbone).trainable = trainable

    @rule(path=st.sampled_from(["auto", "dense", "banded"]), again=st.booleans())
    def set(self, path, again):
        self.backbone.attention_path = path
        self.backbone.rematerialize = again

    @rule()
    def save(self):
        self.model.save_weights(self.folder / "all.weights.h5")
        self.saved = self.shapes()

    @precondition(lambda self: self.saved == self.shapes())
    @rule()
    def load(self):
        self.model.load_weights(self.folder / "all.weights.h5")

    def shapes(self):
        return [(v.path, v.shape, v.dtype) for v in self.model.variables]

    @rule(batches=st.booleans())
    def fit(self, batches):
        if not self.model.trainable_variables:
            with pytest.raises(ValueError, match="Nothing can be trained"):
                self.model.fit(X, Y, verbose=0)
            return
        known = [*map(id, optimizer_weights(self.model.optimizer))]
        if known != [*map(id, self.model.trainable_variables)]:
            if known:
                with pytest.raises(ValueError, match="Call compile again"):
                    self.model.fit(X, Y, verbose=0)
            self.compile()
        steps = int(self.model.optimizer.iterations)
        if batches:
            self.model.train_on_batch(X, Y)
        else:
            self.model.fit(X, Y, verbose=0)
        assert int(self.model.optimizer.iterations) == steps + 1

    def compile(self):
        self.model.compile(keras.optimizers.SGD(0.01, momentum=0.5), loss=self.model.loss)

    @rule(door=st.sampled_from([*COPIES]))
    def copy(self, door):
        """The copy lives on. It is what the model was, and so is its optimizer."""
        copied, whole = COPIES[door]
        before, optimizer = described(self.model), self.model.optimizer
        present = {id(v) for v in self.model.variables}
        kept = whole and all(id(v) in present for v in optimizer_weights(optimizer))
        self.model = copied(self.model, self.folder)
        after = described(self.model)
        wrong = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
        assert wrong == {}
        if kept:
            for ours, theirs in zip(
                self.model.optimizer.variables, optimizer.variables, strict=True
            ):
                np.testing.assert_array_equal(ours.value, theirs.value)

    @rule(
        use=st.sampled_from(["fit", "evaluate", "predict"]), when=st.sampled_from(["begin", "end"])
    )
    def interrupt(self, use, when):
        kind = {"fit": "train", "evaluate": "test", "predict": "predict"}[use]
        callback = keras.callbacks.Callback()
        setattr(callback, f"on_{kind}_batch_{when}", press_ctrl_c)
        if use == "fit":
            if not self.model.trainable_variables:
                return
            self.compile()
        labels = () if use == "predict" else (Y,)
        with pytest.raises(KeyboardInterrupt):
            getattr(self.model, use)(X, *labels, verbose=0, callbacks=[callback])

    @invariant()
    def agrees(self):
        new = fresh(self.model)
        logits = np.asarray(new(X))
        close = {"rtol": 1e-3, "atol": 1e-4}
        np.testing.assert_allclose(self.model(X), logits, **close)
        np.testing.assert_allclose(self.model.predict(X, verbose=0), logits, **close)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        loss = -np.take_along_axis(log_probs, Y[..., None], axis=-1).mean()
        np.testing.assert_allclose(self.model.evaluate(X, Y, verbose=0)[0], loss, **close)
        text = self.model.generate(PROMPT, max_new_tokens=4)
        row = {"token_ids": [text], "padding_mask": [[1] * len(text)]}
        scores = np.asarray(new(row))[0, len(PROMPT) - 1 : -1]
        chosen = scores[np.arange(4), text[len(PROMPT) :]]
        np.testing.assert_allclose(chosen, scores.max(axis=-1), **close)


@pytest.mark.slow
def test_lives():
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=EVENTS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
