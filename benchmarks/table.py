"""Makes the tables of `benchmarks/README.md` and of `README.md` from the results."""

import json
import shutil
from pathlib import Path

from models import SIZES, decoding_bytes, matrix_flops
from run import HERE

PAGES = (HERE / "README.md", HERE.parent / "README.md")
RECORDS = HERE.parent / "mistral_lib" / "teaching" / "records"
NAMES = {"keras_hub": "KerasHub", "transformers": "transformers"}


def speed(result: dict) -> str:
    """The speeds as Markdown: ratios of medians, and the share of the machine's limit.

    Args:
        result: what `run.py` wrote.
    """
    rows = [
        "| work | beside KerasHub | beside transformers | of the machine's limit | memory, "
        "KerasHub's to ours |",
        "|---|---|---|---|---|",
    ]
    for name, work in result["workloads"].items():
        if name.startswith("decode") and (name.endswith("_2") or "_x8_" in name):
            continue  # the short one of a pair, and what the sentences below the table say
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
    return "\n".join([*rows, "", *comparisons(result), measured_on(result)])


def comparisons(result: dict) -> list[str]:
    """What this library is compared with itself for: rows of a batch, and places in a text."""
    known, said = result["workloads"], []
    if "decode_80_x8_64" in known and "decode_80_x1_64" in known:
        one, eight = (steps(result, f"decode_80_x{n}_64", "mistral_lib") for n in (1, 8))
        said.append(f"Eight rows at once write {8 * one / eight:.1f} × the tokens of one row.")
    if {"token_1024", "token_32768"} <= known.keys():
        near, far = (steps(result, f"token_{n}", "mistral_lib") for n in (1024, 32768))
        said.append(f"A token after 32,768 takes {far / near:.2f} × the time of one after 1,024.")
    return said


def measured_on(result: dict) -> str:
    """The machine, the date and the versions."""
    machine = result["machine"]
    versions = {**machine["versions"].get("peers", {}), **machine["versions"]["mistral_lib"]}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{machine['cpu']}, {machine['cores']} cores, {result['date']}: {listed}."


def loading(result: dict) -> str:
    """Loading time and peak memory of every case."""
    rows = [
        "| files | loaded by | time, to ours | highest memory, to the model's size |",
        "|---|---|---|---|",
    ]
    for case, contenders in result["cases"].items():
        ours = contenders["mistral_lib"]["seconds"]
        for name, row in contenders.items():
            cells = [case, name, f"{row['seconds'] / ours:.1f} ×"]
            rows.append(f"| {' | '.join(cells)} | {row['peak_per_model_byte']:.2f} × |")
    size = f"The model: {result['model_bytes'] / 1e9:.2f} GB in float32."
    return "\n".join([*rows, "", f"{size} {measured_on(result)}"])


def startup(result: dict) -> str:
    """How long everything takes the first time, and how compilation grows with prompt lengths."""
    lengths, rows = len(result["lengths"]), result["contenders"]
    half = lengths // 2
    stages = {
        "open the file, and the first token": lambda row: row["open"] + row["first"],
        f"{lengths} prompts of as many lengths": lambda row: sum(row["cold"]),
        "the same prompts again": lambda row: sum(row["warm"]),
        f"compiling for the first {half} lengths": lambda row: compiling(row, 0, half),
        f"compiling for the next {half}": lambda row: compiling(row, half, lengths),
    }
    peers = [name for name in ("keras_hub", "transformers") if name in rows]
    lines = [
        f"| work | {' | '.join('beside ' + NAMES[name] for name in peers)} |",
        "|---" * (1 + len(peers)) + "|",
    ]
    for title, seconds in stages.items():
        cells = [title]
        for name in peers:
            nothing = title.startswith("compiling") and name == "transformers"
            ratio = seconds(rows[name]) / seconds(rows["mistral_lib"])
            cells.append("–" if nothing else f"{ratio:.1f} ×")
        lines.append(f"| {' | '.join(cells)} |")
    imports = result["import_seconds"]
    ratio = imports["mistral_lib"] / imports["keras"]
    sentence = f"`import mistral_lib` takes {ratio:.2f} × the time of `import keras`."
    return "\n".join([*lines, "", f"{sentence} {measured_on(result)}"])


def compiling(row: dict, begin: int, end: int) -> float:
    """Seconds that the first calls of some lengths take beyond later calls."""
    return sum(row["cold"][begin:end]) - sum(row["warm"][begin:end])


def quality(result: dict) -> str:
    """What quantization costs the shipped model."""
    rows = ["| weights | megabytes | perplexity | bits per byte |", "|---|---|---|---|"]
    for name, row in result["rows"].items():
        size = f"{row['weight_bytes'] / 1e6:.2f}"
        rows.append(f"| {name} | {size} | {row['perplexity']:.2f} | {row['bits_per_byte']:.4f} |")
    text = f"{result['documents']} texts, {result['bytes']:,} bytes, {result['tokens']:,} tokens"
    return "\n".join([*rows, "", f"`{result['preset']}` on {text} that it was not trained on."])


def gains(result: dict) -> str:
    """What each step brought, in time and workspace."""
    rows = ["| step | time | workspace |", "|---|---|---|"]
    for title, pair in result["steps"].items():
        before, after = pair["before"], pair["after"]
        faster = f"{before['seconds'] / after['seconds']:.1f} ×"
        smaller = f"{before['workspace_bytes'] / max(1, after['workspace_bytes']):.1f} ×"
        rows.append(f"| {title} | {faster} | {smaller} |")
    training = result["training, 2,048 tokens"]
    base = training["all logits"]
    for name, row in training.items():
        if row is not base:
            faster = f"{base['seconds'] / row['seconds']:.2f} ×"
            smaller = f"{base['workspace_bytes'] / row['workspace_bytes']:.1f} ×"
            rows.append(f"| training, beside all logits at once: {name} | {faster} | {smaller} |")
    return "\n".join([*rows, "", measured_on(result)])


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
    tokens = {"decode": 62, "token": 32}.get(name.partition("_")[0])
    if tokens and work["arguments"].get("rows", 1) == 1:
        return tokens * decoding_bytes(size) / seconds / work["limit"]["rate"]
    return None


def title(name: str) -> str:
    """A workload's name for readers."""
    kind, *rest = name.split("_")
    if kind == "prefill":
        return f"forward, {int(rest[0]):,} tokens"
    if kind == "decode":
        rows = int(rest[1].removeprefix("x"))
        return f"decode to {int(rest[0]):,} tokens" + (f", batch {rows}" if rows > 1 else "")
    if kind == "token":
        return f"a token after {int(rest[0]):,}"
    return "one step of " + ("LoRA training" if rest[0] == "lora" else "full training")


TABLES = {
    "cpu": speed,
    "loading": loading,
    "startup": startup,
    "steps": gains,
    "quantization_quality": quality,
}


def page(text: str) -> str:
    """The text with every table made anew between its two comments."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if not found:
            continue
        after = rest.partition(end)[2]
        made = make(json.loads((HERE / "results" / f"{name}.json").read_text()))
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


def drawn() -> list[Path]:
    """The results that chapter 19 draws, and so have to come with the library."""
    results = HERE / "results"
    return [results / "cpu.json", results / "startup.json", *sorted(results.glob("gpu*.json"))]


def main() -> None:
    """Puts the tables, and copies of the results that the book draws, in their places."""
    for path in PAGES:
        path.write_text(page(path.read_text()))
    for path in drawn():
        shutil.copyfile(path, RECORDS / f"benchmark_{path.name}")


if __name__ == "__main__":
    main()
