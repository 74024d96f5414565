"""What is timed: one class for each contender, with the same tasks.

Every class imports its own library, so each runs in the environment that has it. A task is
prepared once, and returns a function that does the work and gives a few numbers to compare.
"""

import os
import time

import numpy as np
from models import EPSILON, LORA_RANK, NORMS, SIZES, shapes, tensor, token_ids


def fingerprint(array) -> list[float]:
    """Sixteen numbers out of an array, spread over it."""
    flat = np.asarray(array, "float32").ravel()
    return flat[np.linspace(0, flat.size - 1, 16).astype(int)].tolist()


class _Keras:
    """What the two contenders on Keras share."""

    def __init__(self, size: str):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        self.size = SIZES[size]

    def _load(self, variables: dict):
        for name, shape in shapes(self.size).items():
            values = tensor(name, shape)
            variables[name].assign(values.reshape(variables[name].shape))

    def forward(self, length: int):
        """The backbone's hidden states of one row of `length` tokens."""
        import jax

        ids = token_ids(self.size, length)
        inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        weights = [v.value for v in self.backbone.trainable_variables]
        others = [v.value for v in self.backbone.non_trainable_variables]
        compiled = (
            jax.jit(lambda *state: self.backbone.stateless_call(*state, inputs)[0])
            .lower(weights, others)
            .compile()
        )

        def run():
            return fingerprint(jax.block_until_ready(compiled(weights, others)))

        return run

    def train(self, length: int, lora: bool):
        """One step of `fit` on one row."""
        import keras

        if lora:
            self.backbone.enable_lora(LORA_RANK)
        self.model.compile(
            optimizer=keras.optimizers.Adam(1e-5),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[],
        )
        ids = token_ids(self.size, length + 1)
        x = {"token_ids": ids[:, :-1], "padding_mask": np.ones((1, length), "int32")}

        def run():
            history = self.model.fit(x, ids[:, 1:], batch_size=1, verbose=0).history
            return [float(history["loss"][0])]

        return run


class MistralLib(_Keras):
    """This library."""

    def __init__(self, size: str):
        super().__init__(size)
        from mistral_lib import MistralBackbone, MistralCausalLM, without_weights

        with without_weights():
            backbone = MistralBackbone(**self.size, layer_norm_epsilon=EPSILON, dtype="float32")
        embedding = backbone.token_embedding
        variables = {
            "embeddings": embedding.embeddings,
            "head": embedding.reverse_embeddings,
            "norm": backbone.layer_norm.scale,
        }
        for index, block in enumerate(backbone.transformer_layers):
            for part in (block.self_attention, block.feedforward):
                for layer in part._layers:
                    if getattr(layer, "kernel", None) is not None:
                        variables[f"{index}.{layer.name}"] = layer.kernel
            for name in NORMS:
                variables[f"{index}.{name}"] = getattr(block, name).scale
        self.backbone = backbone
        self._load(variables)
        self.model = MistralCausalLM(backbone)

    @classmethod
    def opened(cls, size: str, folder):
        """The model from a preset on disk."""
        from mistral_lib import MistralBackbone, MistralCausalLM

        self = cls.__new__(cls)
        self.size = SIZES[size]
        self.model = MistralCausalLM(MistralBackbone.from_preset(folder, dtype="float32"))
        return self

    def generate(self, length: int, new: int, rows: int = 1):
        """Continues prompts of `length` tokens greedily by `new` tokens."""
        prompts = token_ids(self.size, length, rows).tolist()

        def run():
            written = self.model.generate(
                prompts, max_new_tokens=new, stop_token_ids=None, strip_prompt=True
            )
            return [float(token) for token in written[0]]

        return run

    def go_on(self, length: int):
        """Writes 32 tokens behind a prompt of `length`, and 32 more with every further run."""
        import jax

        from mistral_lib.generation.decoding import DecodingLoop
        from mistral_lib.generation.protocol import Job
        from mistral_lib.generation.reading import PromptReader

        loop = DecodingLoop(PromptReader(self.backbone))
        job = Job([token_ids(self.size, length)[0].tolist()], [1024], [0])
        state = loop.start(job)

        def run():
            nonlocal state
            state = jax.block_until_ready(loop.run(state, job, steps=32))
            return [float(state.counts[0])]

        return run


class KerasHub(_Keras):
    """KerasHub's Mistral on JAX."""

    def __init__(self, size: str):
        super().__init__(size)
        from keras_hub.models import MistralBackbone

        self.backbone = MistralBackbone(**self.size, layer_norm_epsilon=EPSILON, dtype="float32")
        variables = {
            "embeddings": self.backbone.token_embedding.embeddings,
            "head": self.backbone.token_embedding.reverse_embeddings,
            "norm": self.backbone.layer_norm.scale,
        }
        for index, block in enumerate(self.backbone.transformer_layers):
            attention = block._self_attention_layer
            parts = {
                "query": attention._query_dense.kernel,
                "key": attention._key_dense.kernel,
                "value": attention._value_dense.kernel,
                "attention_output": attention._output_dense.kernel,
                "gate": block._feedforward_gate_dense.kernel,
                "up": block._feedforward_intermediate_dense.kernel,
                "down": block._feedforward_output_dense.kernel,
                "self_attention_layernorm": block._self_attention_layernorm.scale,
                "feedforward_layernorm": block._feedforward_layernorm.scale,
            }
            variables |= {f"{index}.{name}": variable for name, variable in parts.items()}
        self._load(variables)
        self._wrap()

    @classmethod
    def opened(cls, size: str, folder):
        """The model from a preset on disk."""
        os.environ.setdefault("KERAS_BACKEND", "jax")
        from keras_hub.models import MistralBackbone

        self = cls.__new__(cls)
        self.size = SIZES[size]
        self.backbone = MistralBackbone.from_preset(str(folder), dtype="float32")
        self._wrap()
        return self

    def _wrap(self):
        from keras_hub.models import MistralCausalLM

        self.model = MistralCausalLM(backbone=self.backbone, preprocessor=None)
        self.model.compile(sampler="greedy")

    def generate(self, length: int, new: int, rows: int = 1):
        """Continues prompts of `length` tokens greedily by `new` tokens."""
        total = length + new
        ids = np.zeros((rows, total), "int32")
        ids[:, :length] = token_ids(self.size, length, rows)
        mask = np.broadcast_to(np.arange(total) < length, ids.shape)

        def run():
            written = self.model.generate(
                {"token_ids": ids, "padding_mask": mask}, stop_token_ids=None
            )
            return [float(token) for token in np.asarray(written["token_ids"])[0, length:]]

        return run


class Transformers:
    """transformers' Mistral on PyTorch."""

    def __init__(self, size: str):
        import torch
        from transformers import MistralConfig, MistralForCausalLM

        self.size, self.torch = SIZES[size], torch
        config = MistralConfig(
            vocab_size=self.size["vocabulary_size"],
            hidden_size=self.size["hidden_dim"],
            intermediate_size=self.size["intermediate_dim"],
            num_hidden_layers=self.size["num_layers"],
            num_attention_heads=self.size["num_query_heads"],
            num_key_value_heads=self.size["num_key_value_heads"],
            sliding_window=self.size["sliding_window"],
            rms_norm_eps=EPSILON,
            max_position_embeddings=2**17,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            attn_implementation="sdpa",
        )
        self.model = MistralForCausalLM(config).eval()
        renamed = {
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "attention_output": "self_attn.o_proj",
            "gate": "mlp.gate_proj",
            "up": "mlp.up_proj",
            "down": "mlp.down_proj",
            "self_attention_layernorm": "input_layernorm",
            "feedforward_layernorm": "post_attention_layernorm",
        }
        outside = {"embeddings": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, shape in shapes(self.size).items():
                layer, _, part = name.rpartition(".")
                path = outside.get(name) or f"model.layers.{layer}.{renamed[part]}"
                values = tensor(name, shape)
                turned = len(shape) == 2 and name != "embeddings"
                parameters[f"{path}.weight"].copy_(
                    torch.from_numpy(values.T.copy() if turned else values)
                )

    @classmethod
    def opened(cls, size: str, folder):
        """The model from a checkpoint on disk."""
        import torch
        from transformers import MistralForCausalLM

        self = cls.__new__(cls)
        self.size, self.torch = SIZES[size], torch
        self.model = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return self

    def forward(self, length: int):
        """The decoder's hidden states of one row of `length` tokens."""
        ids = self.torch.from_numpy(token_ids(self.size, length))

        def run():
            with self.torch.inference_mode():
                return fingerprint(self.model.model(ids, use_cache=False).last_hidden_state)

        return run

    def generate(self, length: int, new: int, rows: int = 1):
        """Continues prompts of `length` tokens greedily by `new` tokens."""
        ids = self.torch.from_numpy(token_ids(self.size, length, rows))

        def run():
            with self.torch.inference_mode():
                written = self.model.generate(
                    ids,
                    attention_mask=self.torch.ones_like(ids),
                    min_new_tokens=new,
                    max_new_tokens=new,
                    do_sample=False,
                )
            return [float(token) for token in written[0, length:]]

        return run

    def train(self, length: int, lora: bool):
        """One step on one row."""
        model = self.model.train()
        if lora:
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(r=LORA_RANK, target_modules=["q_proj", "v_proj"])
            model = get_peft_model(model, config)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = self.torch.optim.Adam(trainable, 1e-5)
        ids = self.torch.from_numpy(token_ids(self.size, length + 1))

        def run():
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            loss = self.torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return [float(loss)]

        return run


class Limits:
    """What the machine can do: the rate of matrix products and of reading memory."""

    def __init__(self, size: str):
        self.size = SIZES[size]

    def matmul(self):
        """As many products of a thousand rows with a gate kernel as take a moment."""
        import jax
        import jax.numpy as jnp

        hidden, wide = self.size["hidden_dim"], self.size["intermediate_dim"]
        rows = jnp.ones((1024, hidden))
        kernel = jnp.ones((hidden, wide))
        product = jax.jit(lambda rows, kernel: rows @ kernel)

        def run():
            times = []
            for _ in range(20):
                start = time.perf_counter()
                jax.block_until_ready(product(rows, kernel))
                times.append(time.perf_counter() - start)
            return [2 * 1024 * hidden * wide / float(np.median(times))]

        return run

    def read(self):
        """One reading of as many bytes as a token reads of the weights."""
        import jax
        import jax.numpy as jnp
        from models import decoding_bytes

        numbers = jnp.ones(decoding_bytes(self.size) // 4)
        total = jax.jit(jnp.sum)

        def run():
            times = []
            for _ in range(10):
                start = time.perf_counter()
                jax.block_until_ready(total(numbers))
                times.append(time.perf_counter() - start)
            return [numbers.nbytes / float(np.median(times))]

        return run


CONTENDERS = {
    "mistral_lib": MistralLib,
    "keras_hub": KerasHub,
    "transformers": Transformers,
    "limits": Limits,
}
