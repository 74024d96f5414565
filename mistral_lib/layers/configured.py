"""Layers that know the whole architecture (chapter 12, "The backbone")."""

from typing import Any, Self

from mistral_lib.config import MistralConfig
from mistral_lib.layers.quantizable import Composite


class ConfiguredLayer(Composite):
    """The base of a layer that takes one config in place of a dozen sizes.

    Args:
        config: the `MistralConfig` of the model.
        layer: which of its layers this is, or is part of.
        **kwargs: `name`, `dtype` and `trainable`.
    """

    def __init__(self, config: MistralConfig, layer: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.layer = layer

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "layer": self.layer}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "config": MistralConfig(**config["config"])})
