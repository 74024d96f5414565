"""Telling the formats of presets apart (chapter 17, "Presets and checkpoints").

Three formats are read. Each is a module with the same names:

    CONFIG_FILE, TOKENIZER_FILE, PREPROCESSOR_FILE   what errors call the files
    read_config, read_dtype                          arguments and dtype of the backbone
    read_tensors                                     its weights, as tensors not yet read
    read_task                                        the model's arguments; whether it takes text
    read_tokenizer_config, read_preprocessor_config  their arguments
    find_vocabulary                                  the SentencePiece model
"""

from types import ModuleType

from mistral_lib.presets import keras_format, mistral_format, transformers_format
from mistral_lib.presets.json_files import read_json
from mistral_lib.presets.sources import Source

FORMATS = {
    "KerasHub": keras_format,
    "transformers": transformers_format,
    "Mistral": mistral_format,
}


def format_of(folder: Source) -> ModuleType:
    """The module of the format that a preset's files have, told by what stands in them.

    Args:
        folder: a source of files.

    Returns:
        One of `FORMATS`. Where nothing decides, KerasHub's, whose messages say what is missing.

    >>> from mistral_lib.presets.sources import open_preset
    >>> format_of(open_preset("mistral_tiny_en")).__name__
    'mistral_lib.presets.keras_format'
    """
    config = folder.find(transformers_format.CONFIG_FILE)
    if config is not None:
        content = read_json(config)
        from_transformers = "model_type" in content and "registered_name" not in content
        return transformers_format if from_transformers else keras_format
    if folder.find(mistral_format.CONFIG_FILE) is not None:
        return mistral_format
    # A folder with a tokenizer alone.
    names = (transformers_format.TOKENIZER_FILE, *transformers_format.VOCABULARY_FILES)
    alone = any(folder.find(name) is not None for name in names)
    return transformers_format if alone else keras_format
