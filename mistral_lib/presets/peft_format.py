"""PEFT's adapters, read and written (chapter 14, "LoRA").

An adapter is a folder of `adapter_config.json`, which says what was adapted and how, and
`adapter_model.safetensors` with the factors: `lora_A.weight` (r, inputs) and `lora_B.weight`
(outputs, r), the transposes of ours. PEFT's update is `(alpha / r) * B @ A`, the same as here.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mistral_lib import lora
from mistral_lib.checks import as_path
from mistral_lib.presets.addresses import open_source
from mistral_lib.presets.atomic import names_in, replaced
from mistral_lib.presets.json_files import write_json
from mistral_lib.presets.lora_format import MESSAGES
from mistral_lib.presets.peft_config import (
    ADVICE,
    CONFIG_FILE,
    NOT_ADAPTED,
    describe,
    module_names,
    read_plan,
)
from mistral_lib.presets.safetensors_files import list_tensors, write_tensors
from mistral_lib.presets.tensors import Place, match

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"


def load(backbone: Any, adapter: str | os.PathLike) -> None:
    """Loads a PEFT adapter: see `MistralBackbone.load_lora_weights`."""
    address = os.fspath(adapter)
    if as_path(address).is_file():
        raise ValueError(
            f"{address} is no adapter: that is a .lora.h5 file, or the folder with a PEFT "
            f"adapter's {CONFIG_FILE}."
        )
    source = open_source(address if "://" in address else Path(address))
    if source.find(CONFIG_FILE) is None:
        raise source.missing(f"{source} has no file {CONFIG_FILE}, so it is no PEFT adapter.")
    config = source.json(CONFIG_FILE)
    file = source.find(WEIGHTS_FILE)
    if file is None:
        pickled = source.find(PICKLED_FILE) is not None
        why = f"only {PICKLED_FILE}, which could run code when it is opened" if pickled else "none"
        raise source.missing(
            f"{source} must have the weights in {WEIGHTS_FILE}, but has {why}. PEFT writes it with "
            "save_pretrained(folder, safe_serialization=True)."
        )
    tensors = list_tensors(file)
    # PEFT's names begin with two wrappers of its own; then comes the model that it was given, with
    # or without an output projection.
    whole = any(name.startswith("base_model.model.model.") for name in tensors)
    names = module_names(backbone, "model." if whole else "")
    plan = read_plan(config, names, source.get(CONFIG_FILE))
    _refuse_whole_matrices(tensors, file)
    stored = _stored_names(plan, names)
    shapes = lora.factor_shapes(backbone, plan)
    places = [Place(name, stored[name], shape[::-1]) for name, shape in shapes.items()]
    factors = match(places, tensors, file, MESSAGES).items()
    arrays = {name: tensor.arranged(transposed=True).read() for name, tensor in factors}
    lora.assign(backbone, plan, arrays)


def _refuse_whole_matrices(names: Iterable[str], file: Path) -> None:
    """Refuses an embedding and an output that were trained along with the factors."""
    whole = [name for name in names if any(f".{part}." in name for part in NOT_ADAPTED)]
    if whole:
        raise ValueError(
            f"{file} holds {min(whole)}: besides LoRA, the adapter has its own embedding or output "
            "layer. PEFT stores these when tokens were added to the vocabulary, or if "
            f"it is told to. That is not supported. {ADVICE}"
        )


def save(
    backbone: Any, folder: str | os.PathLike, base_model_name_or_path: str | None = None
) -> None:
    """Writes a PEFT adapter: see `MistralBackbone.export_lora_to_peft`."""
    plan = lora.require(backbone)
    names = module_names(backbone)
    stored = _stored_names(plan, names)
    tensors = {stored[name]: factor.T for name, factor in lora.factors(backbone).items()}
    folder = as_path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a PEFT adapter is a folder.")
    held = names_in(folder)
    if held and CONFIG_FILE not in held:
        raise FileExistsError(
            f"{folder} holds files, but no PEFT adapter. Export into a new or an empty folder."
        )
    with replaced(folder, stale=[PICKLED_FILE]) as new:
        write_json(new / CONFIG_FILE, describe(plan, names, base_model_name_or_path))
        described = {name: (array.shape, "float32") for name, array in tensors.items()}
        write_tensors(new / WEIGHTS_FILE, described, tensors.values())


def _stored_names(plan: lora.Plan, names: dict[str, str]) -> dict[str, str]:
    """The tensors' names in the file by the factors' names here, `<path>/a` and `<path>/b`."""
    return {
        f"{path}/{part}": f"base_model.model.{names[path]}.lora_{part.upper()}.weight"
        for path in plan
        for part in "ab"
    }
