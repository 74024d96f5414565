"""The sampler that `compile` sets for `generate` and `stream` (chapter 16, "Sampling")."""

from typing import Any

from mistral_lib import samplers
from mistral_lib.generation.full_cache import CachedCalls
from mistral_lib.generation.loops import Loops


class ModelWithSampler(CachedCalls):
    """The part of `MistralCausalLM` that remembers the sampler of `compile`, as in KerasHub."""

    _loops: Loops
    _given_sampler: Any = None

    def compile(self, *args: Any, sampler: Any = None, **kwargs: Any) -> None:
        """Keras's `compile` with KerasHub's `sampler`, for calls that make no choice themselves.

        Args:
            *args: as in Keras.
            sampler: "greedy", "random", "top_k" (5 tokens), "top_p" (0.1), "beam" (5 beams) or
                "contrastive", as in KerasHub; an object of `mistral_lib.samplers` or
                `keras_hub.samplers`, or of a subclass of your own; or any function with the same
                call arguments. `None` means "greedy". If the code or the attributes of an object
                change later, `generate` does not notice it until the next `compile`.
            **kwargs: as in Keras.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> model.compile(sampler=samplers.TopKSampler(k=3, seed=1))
        >>> len(model.generate([1, 2], max_new_tokens=5))
        7
        >>> model.compile(sampler="best")
        Traceback (most recent call last):
        ValueError: sampler must be one of 'greedy', 'random', 'top_k', 'top_p', 'beam', ...
        """
        chosen = samplers.get("greedy" if sampler is None else sampler)
        super().compile(*args, **kwargs)
        self.sampler = chosen
        self._given_sampler = sampler
        self.generate_function = None
        self._loops.forget_object()

    def get_compile_config(self) -> dict[str, Any] | None:
        config, given = super().get_compile_config(), self._given_sampler
        if hasattr(given, "get_config"):
            given = samplers.serialize(given)
        return {**config, "sampler": given} if config and given is not None else config


def as_options(sampler: Any) -> dict[str, Any] | None:
    """The arguments of `generate` that do what a sampler does; `None` if there are none.

    >>> as_options(samplers.TopKSampler(k=3)), as_options(samplers.ContrastiveSampler())
    ({'temperature': 1.0, 'top_k': 3}, None)
    """
    kind = type(sampler)
    if kind is samplers.GreedySampler:
        return {"temperature": 0.0}
    if kind is samplers.RandomSampler:
        return {"temperature": sampler.temperature}
    if kind is samplers.TopKSampler:
        return {"temperature": sampler.temperature, "top_k": sampler.k}
    if kind is samplers.TopPSampler and sampler.k is None:
        return {"temperature": sampler.temperature, "top_p": sampler.p}
    if kind is samplers.BeamSampler and sampler.temperature == 1 and not sampler.return_all_beams:
        if sampler.num_beams == 1:
            return {"temperature": 0.0}
        return {"num_beams": sampler.num_beams, "length_penalty": 0.0}
    return None
