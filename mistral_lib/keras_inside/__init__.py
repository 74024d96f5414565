"""All uses of what Keras and JAX do not document are in this package.

Each function says what it relies on, and in which versions that was seen (versions of Keras, unless
another library is named). Its test fails with a clear message if a new version changes that.
"""

from mistral_lib.keras_inside.calibration import (
    CalibratedMatrix,
)
from mistral_lib.keras_inside.changes import (
    all_or_nothing,
    closing_scopes,
)
from mistral_lib.keras_inside.cloning import (
    Cloneable,
)
from mistral_lib.keras_inside.layers import (
    is_traced,
    layers_inside,
    layout_of,
    mark_as_float,
    matrix_attribute,
    quantized_variables,
    remove_weight,
    track_again,
    unlocked,
    unwrap_quantize,
    without_autocast,
    without_weights,
)
from mistral_lib.keras_inside.optimizers import (
    SwappedAverages,
    exclude_as,
    optimizer_averages,
    optimizer_weights,
    take_path,
)
from mistral_lib.keras_inside.steps import (
    Steps,
    compiled_arguments,
    compiled_metrics,
)

__all__ = [
    "CalibratedMatrix",
    "Cloneable",
    "Steps",
    "SwappedAverages",
    "all_or_nothing",
    "closing_scopes",
    "compiled_arguments",
    "compiled_metrics",
    "exclude_as",
    "is_traced",
    "layers_inside",
    "layout_of",
    "mark_as_float",
    "matrix_attribute",
    "optimizer_averages",
    "optimizer_weights",
    "quantized_variables",
    "remove_weight",
    "take_path",
    "track_again",
    "unlocked",
    "unwrap_quantize",
    "without_autocast",
    "without_weights",
]
