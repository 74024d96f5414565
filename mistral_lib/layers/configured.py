"""Layers that know the whole architecture (chapter 12, "The backbone")."""

from typing import Any, Self

from mistral_lib.config import MistralConfig
from mistral_lib.layers.quantizable import Composite


class SetOnce:
    """An attribute that is set when its layer or model is made, and stays.

    What was made with it (the layers inside, the loops that write) would go on with the first one.
    """

    def __set_name__(self, owner: type, name: str):
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is not None and self.name not in vars(layer):
            raise AttributeError(f"{type(layer).__name__} has no {self.name} yet.")
        return self if layer is None else vars(layer)[self.name]

    def __set__(self, layer: Any, value: Any):
        if self.name in vars(layer):
            raise AttributeError(
                f"The {self.name} of a {type(layer).__name__} cannot be replaced. Make a new "
                f"{type(layer).__name__} instead."
            )
        vars(layer)[self.name] = value


class ConfiguredLayer(Composite):
    """The base of a layer that takes one config in place of a dozen sizes.

    Args:
        config: the `MistralConfig` of the model.
        layer: which of its layers this is, or is part of.
        **kwargs: `name`, `dtype` and `trainable`.
    """

    config = SetOnce()

    def __init__(self, config: MistralConfig, layer: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.layer = layer

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "layer": self.layer}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "config": MistralConfig(**config["config"])})
