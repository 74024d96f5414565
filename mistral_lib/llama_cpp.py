"""Models and adapters for llama.cpp (chapter 17, "Presets and checkpoints")."""

from pathlib import Path

from mistral_lib.presets import gguf_export, gguf_lora


class LlamaCppExport:
    """Writes GGUF files, which `from_preset` and `load_lora_weights` read too."""

    def export_to_gguf(self, path: str | Path, dtype: str = "F16") -> None:
        """Writes config and weights as a GGUF file, for llama.cpp and the programs built on it.

        Norms are float32. In "Q4_0" and "Q4_K" the output has the type Q6_K, as in llama.cpp. A
        tensor whose rows do not divide into whole blocks (256 numbers in Q4_K and Q6_K, 32 in Q4_0
        and Q8_0) becomes Q8_0, or else F16. "Q4_K" and "Q6_K" try several scales for each group of
        numbers, as llama.cpp does, which takes some 20 minutes for 7B on two CPU cores. llama.cpp
        has no sliding window for Mistral models: the file records it, and a warning says so.

        Args:
            path: a file whose name ends in ".gguf"; an old file is replaced once the new
                one is complete.
            dtype: "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K" or "Q6_K", the type of most
                tensors.

        Raises:
            ImportError: the package `gguf` is not installed.
            ValueError: another name or dtype; the backbone has LoRA that is not merged, or is
                quantized, or has windows that differ by layer or rotary positions that llama.cpp
                does not support; or numbers that the dtype cannot hold.

        Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

        >>> import tempfile
        >>> from mistral_lib import MistralBackbone
        >>> file = tempfile.mkdtemp() + "/small.gguf"
        >>> MistralBackbone(10, 1, 2, 8, 16, 1, sliding_window=None).export_to_gguf(file)
        >>> MistralBackbone.from_preset(file).hidden_dim
        8
        """
        gguf_export.export_backbone(self, path, dtype)

    def export_lora_to_gguf(self, path: str | Path) -> None:
        """Writes the low-rank factors as an adapter for llama.cpp, in float32.

        It fits the base model that `export_to_gguf` writes, in any dtype.

        Args:
            path: a file whose name ends in ".gguf".

        Raises:
            ImportError: the package `gguf` is not installed.
            ValueError: another name, or there is no LoRA.

        >>> import tempfile
        >>> from mistral_lib import MistralBackbone
        >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
        >>> backbone.enable_lora(2)
        >>> file = tempfile.mkdtemp() + "/adapter.gguf"
        >>> backbone.export_lora_to_gguf(file)
        >>> backbone.load_lora_weights(file)
        """
        gguf_lora.save(self, path)
