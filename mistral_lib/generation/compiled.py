"""The functions that generation compiles, and how to watch them (chapter 16, "Sampling")."""

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Hashable, Iterator

import jax
import keras

from mistral_lib.keras_inside import closing_scopes

_watchers: list[list["Call"]] = []


class CompiledFunction:
    """A function that computes with a model, compiled by JAX once for each set of shapes.

    The weights are arguments of the compiled program, never constants in it: a model that is
    trained on, or that shares its shapes with another, needs no new compilation, and no weight is
    held twice. There is one program for each value of `traced_settings` of the models.

    Args:
        function: takes and returns arrays, or trees of them.
        *backbones: every `MistralBackbone` whose weights it uses.
        donate: whether its first argument is used up: the result takes over that memory.

    Attributes:
        name: the function's name, under which profilers and XLA show the program.

    >>> import jax.numpy as jnp
    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> def embed(ids):
    ...     return backbone.token_embedding(ids)
    >>> compiled = CompiledFunction(embed, backbone, donate=False)
    >>> compiled(jnp.array([[1, 2, 3]])).shape
    (1, 3, 8)
    >>> compiled.lower(jax.ShapeDtypeStruct((1, 5), "int32")).out_info.shape
    (1, 5, 8)
    """

    def __init__(self, function: Callable, *backbones: typing.Any, donate: bool = True):
        self.name = function.__name__.lstrip("_")
        self._backbones = backbones
        self._times_traced = 0

        def run(settings, weights, *arguments):
            self._times_traced += 1  # Python runs while JAX compiles, and never again
            with keras.StatelessScope(list(zip(self._variables(), weights, strict=True))):
                return function(*arguments)

        run.__name__ = self.name
        donated = (2,) if donate else ()
        self._jitted = jax.jit(run, static_argnums=0, donate_argnums=donated)

    @closing_scopes
    def __call__(self, *arguments: typing.Any) -> typing.Any:
        settings, weights = self._settings(), [variable.value for variable in self._variables()]
        if not _watchers:
            return self._jitted(settings, weights, *arguments)
        shapes = jax.eval_shape(lambda *same: same, *arguments)  # some may be used up
        before = self._times_traced
        result = self._jitted(settings, weights, *arguments)
        call = Call(self, shapes, compiled=self._times_traced > before)
        for calls in _watchers:
            calls.append(call)
        return result

    def lower(self, *arguments: typing.Any) -> jax.stages.Lowered:
        """The program for some arguments, to be read, compiled or measured without running it.

        Args:
            *arguments: as for a call; a `jax.ShapeDtypeStruct` may stand for an array.
        """
        weights = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in self._variables()]
        return self._jitted.lower(self._settings(), weights, *arguments)

    def _settings(self) -> tuple[Hashable, ...]:
        return tuple(backbone.traced_settings() for backbone in self._backbones)

    def _variables(self) -> list[keras.Variable]:
        return [variable for backbone in self._backbones for variable in backbone.variables]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a compiled function.

    Attributes:
        function: what was called.
        arguments: the shapes and dtypes of its arguments, in their trees.
        compiled: whether it had to be compiled first.
    """

    function: CompiledFunction
    arguments: tuple
    compiled: bool

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.name

    def lower(self) -> jax.stages.Lowered:
        """The program that was called."""
        return self.function.lower(*self.arguments)


@contextlib.contextmanager
def watch() -> Iterator[list[Call]]:
    """Notes the calls of all compiled functions inside a `with` block.

    Yields:
        The list of calls, which grows as they are made.

    >>> from mistral_lib import MistralBackbone, MistralCausalLM
    >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
    >>> with watch() as calls:
    ...     ids = model.generate([1, 2, 3], max_new_tokens=5)
    ...     ids = model.generate([4, 5], max_new_tokens=6)
    >>> [call.name for call in calls if call.compiled]
    ['read_chunk', 'choose', 'run_steps']
    >>> len(calls)
    6
    """
    calls: list[Call] = []
    _watchers.append(calls)
    try:
        yield calls
    finally:
        _watchers.pop()


def bucket(size: int) -> int:
    """The next power of two from 16 on: one compilation serves every size in between.

    >>> bucket(3), bucket(16), bucket(100)
    (16, 16, 128)
    """
    return max(16, power_of_two(size))


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size`.

    >>> power_of_two(1), power_of_two(5), power_of_two(8)
    (1, 8, 8)
    """
    return 1 << max(0, size - 1).bit_length()


@typing.dataclass_transform(frozen_default=True)
def array_tree(cls: type) -> type:
    """Makes a class a frozen dataclass that compiled functions take and return.

    >>> @array_tree
    ... class Point:
    ...     x: jax.Array
    >>> jax.tree.map(lambda x: 2 * x, Point(1))
    Point(x=2)
    """
    cls = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
    # JAX puts shapes, and what is no array at all, in the fields: checkers of types let them be.
    cls.__no_type_check__ = True
    return cls
