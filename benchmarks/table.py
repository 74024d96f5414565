"""Makes the table of `benchmarks/README.md` from `benchmarks/results/cpu.json`."""

import json

from models import SIZES, decoding_bytes, matrix_flops
from run import HERE, RESULT

README = HERE / "README.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def table(result: dict) -> str:
    """The results as Markdown: ratios of medians, and the share of the machine's limit.

    Args:
        result: what `run.py` wrote.
    """
    rows = [
        "| work | beside KerasHub | beside transformers | of the machine's limit | memory, "
        "KerasHub's to ours |",
        "|---|---|---|---|---|",
    ]
    for name, work in result["workloads"].items():
        if name.startswith("decode") and name.endswith("_2"):
            continue  # the short one of a pair
        seconds = {contender: steps(result, name, contender) for contender in work["contenders"]}
        ours = seconds["mistral_lib"]
        cells = [title(name)]
        for peer in ("keras_hub", "transformers"):
            cells.append(f"{seconds[peer] / ours:.1f} ×" if peer in seconds else "–")
        share = limit_share(result, name, ours)
        cells.append("–" if share is None else f"{100 * share:.0f} %")
        memory = {key: value["extra_bytes"] for key, value in work["contenders"].items()}
        cells.append(
            f"{memory['keras_hub'] / memory['mistral_lib']:.1f} ×"
            if "keras_hub" in memory and not name.startswith("decode")
            else "–"
        )
        rows.append(f"| {' | '.join(cells)} |")
    machine = result["machine"]
    versions = {**machine["versions"].get("peers", {}), **machine["versions"]["mistral_lib"]}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join(
        [*rows, "", f"{machine['cpu']}, {machine['cores']} cores, {result['date']}: {listed}."]
    )


def steps(result: dict, name: str, contender: str) -> float:
    """Median seconds of a workload; for decoding, of the 62 tokens between the two of a pair."""
    work = result["workloads"]
    seconds = work[name]["contenders"][contender]["seconds"]
    if not name.startswith("decode"):
        return seconds
    return seconds - work[f"{name.removesuffix('_64')}_2"]["contenders"][contender]["seconds"]


def limit_share(result: dict, name: str, seconds: float) -> float | None:
    """How much of the measured matrix-product rate, or memory bandwidth, was reached."""
    size, work = SIZES[result["size"]], result["workloads"][name]
    if name.startswith("prefill"):
        return matrix_flops(size, work["arguments"]["length"]) / seconds / work["limit"]["rate"]
    if name.startswith("decode") and work["arguments"]["rows"] == 1:
        return 62 * decoding_bytes(size) / seconds / work["limit"]["rate"]
    return None


def title(name: str) -> str:
    """A workload's name for readers."""
    kind, *rest = name.split("_")
    if kind == "prefill":
        return f"forward, {int(rest[0]):,} tokens"
    if kind == "decode":
        rows = int(rest[1].removeprefix("x"))
        return f"decode to {int(rest[0]):,} tokens" + (f", batch {rows}" if rows > 1 else "")
    return "one step of " + ("LoRA training" if rest[0] == "lora" else "full training")


def main() -> None:
    """Puts the table in its place."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    made = table(json.loads(RESULT.read_text()))
    README.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
