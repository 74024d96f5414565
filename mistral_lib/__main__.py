"""The command line: `python -m mistral_lib generate "Return the"` (chapter 16, "Sampling")."""

import argparse
import importlib
import io
import os
import sys

import jax

from mistral_lib import MistralCausalLM
from mistral_lib.checks import as_path
from mistral_lib.presets.gguf_files import KINDS
from mistral_lib.presets.info import describe_preset
from mistral_lib.presets.sources import GGUF

PROGRAM = "python -m mistral_lib"
PRESET = "built-in name, folder, .gguf file, hf://user/model or kaggle://user/model/keras/variant"
EXAMPLES = f"""\
examples:
  {PROGRAM} generate "Return the" --max-new-tokens 40
  {PROGRAM} info hf://mistralai/Mistral-7B-v0.1
  {PROGRAM} convert ./checkpoint ./preset --format keras
  {PROGRAM} convert ./checkpoint ./model.gguf --dtype Q4_K
  {PROGRAM} exercises init my_mistral
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the command and its options; by default the program's own.

    Returns:
        The exit code: 0; 1 for an error, said on stderr; 130 when interrupted. Wrong usage exits
        with 2, as argparse does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without UTF-8 shows `?` for what it lacks.
        sys.stdout.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted (`| head`). Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except jax.errors.JaxRuntimeError as error:  # out of memory, above all; pages of statistics
        print(f"{PROGRAM}: error: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1


def generate(options: argparse.Namespace) -> None:
    """Writes a prompt and its continuation to stdout, as it comes."""
    model = MistralCausalLM.from_preset(
        options.preset, dtype=options.dtype, quantization=options.quantization
    )
    pieces = model.stream(
        options.prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)


def info(options: argparse.Namespace) -> None:
    """Writes what a preset is and needs."""
    print(describe_preset(options.preset), flush=True)


def convert(options: argparse.Namespace) -> None:
    """Reads a preset of any format and writes it in one format."""
    target = as_path(options.target)
    form = options.format or ("gguf" if target.suffix == GGUF else "keras")
    if form != "keras" and options.quantization is not None:
        options.error(f"--quantization needs --format keras: {form} has no such weights")
    if (form == "gguf") != (target.suffix == GGUF):
        options.error(f"the name of a GGUF file, and of no other, must end in {GGUF}: {target}")
    kind = options.dtype.upper() if form == "gguf" and options.dtype.upper() in KINDS else None
    # On the CPU: there is more memory, and any machine has bfloat16 there.
    jax.config.update("jax_platforms", "cpu")
    dtype = "auto" if kind else options.dtype
    model = MistralCausalLM.from_preset(
        options.source, dtype=dtype, quantization=options.quantization
    )
    print(f"Writing {target}", file=sys.stderr, flush=True)
    if form == "keras":
        model.save_to_preset(target)
    elif form == "transformers":
        model.export_to_transformers(target)
    else:
        held = next(k for k, dtype in KINDS.items() if dtype == model.backbone.variable_dtype)
        model.export_to_gguf(target, kind or held)
    files = [target] if target.is_file() else target.rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    print(f"{target}: {size:,} bytes", flush=True)


def exercises(options: argparse.Namespace) -> int:
    """Writes a package for the book's exercises, checks it, or says what is done.

    Without a folder it says which exercises of the notebooks are solved.
    """
    try:  # by name and only here: the other commands need no IPython
        own_package = importlib.import_module("mistral_lib.teaching.own_package")
    except ModuleNotFoundError as error:
        raise ImportError(f"The exercises need {error.name}: pip install {error.name}") from error
    if options.folder is None:
        if options.do != "progress":
            options.error(f"{options.do} needs the folder of a package, such as my_mistral")
        own_package.print_progress()
    elif options.do == "init":
        folder = own_package.init(options.folder)
        print(f"{folder}: a package of stubs. Its README.md says where to begin.")
    elif options.do == "check":
        return 0 if own_package.check(options.folder) else 1
    else:
        own_package.progress(options.folder)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Mistral language models from the command line.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(commands, generate, "continue a text")
    command.add_argument("prompt", help="the text to continue")
    command.add_argument(
        "--preset", default="mistral_tiny_en", help=f"{PRESET} (default: %(default)s)"
    )
    command.add_argument(
        "--dtype", help="dtype of the weights; 'auto' is what the files hold (default: Keras's)"
    )
    _add_quantization(command)
    command.add_argument(
        "--max-new-tokens",
        type=int,
        default=100,
        metavar="N",
        help="most tokens (default: %(default)s)",
    )
    command.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 takes the likeliest token; above, tokens are drawn (default: %(default)s)",
    )
    command.add_argument("--top-k", type=int, metavar="K", help="draw among the k likeliest tokens")
    command.add_argument(
        "--top-p", type=float, metavar="P", help="draw among tokens of this total probability"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draw (default: %(default)s)"
    )

    command = _command(commands, info, "show a preset's architecture, parameters and memory")
    command.add_argument("preset", help=PRESET)

    command = _command(commands, convert, "read a preset of any format, write it in another")
    command.add_argument("source", help=PRESET)
    command.add_argument(
        "target", help="a new or empty folder, one with a preset to replace, or a .gguf file"
    )
    command.add_argument(
        "--format",
        choices=("keras", "transformers", "gguf"),
        help="of the target: KerasHub's, which this library saves, that of transformers, or "
        "llama.cpp's (default: gguf if the target's name ends in .gguf, otherwise keras)",
    )
    command.add_argument(
        "--dtype",
        default="auto",
        help="float32, bfloat16 or float16, or for GGUF F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K; "
        "'auto' is what the source holds (default: %(default)s)",
    )
    _add_quantization(command)

    command = _command(commands, exercises, "write a Mistral of your own, and see what is solved")
    command.add_argument(
        "do",
        choices=("init", "check", "progress"),
        help="write a package of stubs, check what you filled in, or say what is done",
    )
    command.add_argument(
        "folder",
        nargs="?",
        help="of the package, such as my_mistral; progress without it is that of the notebooks",
    )
    return parser


def _add_quantization(command):
    command.add_argument(
        "--quantization",
        metavar="KIND",
        help="quantize the weights while loading: int8, int4, or int4/B for a scale every B rows",
    )


def _command(commands, run, description):
    """The parser of one command: it has the function's name, and leads to the function."""
    command = commands.add_parser(
        run.__name__, help=description, description=f"{description[0].upper()}{description[1:]}."
    )
    command.set_defaults(run=run, error=command.error)
    return command


if __name__ == "__main__":
    sys.exit(main())
