"""The command line: `python -m mistral_lib generate "Return the"` (chapter 16, "Sampling")."""

import argparse
import os
import sys

from mistral_lib import MistralCausalLM

PROGRAM = "python -m mistral_lib"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the command and its options; by default the program's own.

    Returns:
        The exit code: 0; 1 for an error, said in one line on stderr; 130 when interrupted. Wrong
        usage exits with 2, as argparse does.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted (`| head`). Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    return 0


def generate(options: argparse.Namespace) -> None:
    """Writes a prompt and its continuation to stdout, as it comes."""
    model = MistralCausalLM.from_preset(options.preset, dtype=options.dtype)
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


def _parser():
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Mistral from the command line.")
    commands = parser.add_subparsers(title="commands", required=True)

    command = commands.add_parser("generate", help="continue a text")
    command.set_defaults(run=generate)
    command.add_argument("prompt", help="the text to continue")
    command.add_argument(
        "--preset",
        default="mistral_tiny_en",
        help="built-in name, folder, hf://… or kaggle://… (default: %(default)s)",
    )
    command.add_argument(
        "--dtype", help="dtype of the weights; 'auto' is what the files hold (default: Keras's)"
    )
    command.add_argument(
        "--max-new-tokens", type=int, default=100, help="most tokens (default: %(default)s)"
    )
    command.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest token; above, tokens are drawn (default: %(default)s)",
    )
    command.add_argument("--top-k", type=int, help="draw among the k likeliest tokens")
    command.add_argument("--top-p", type=float, help="draw among tokens of this total probability")
    command.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
