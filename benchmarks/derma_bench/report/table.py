"""A run as Markdown.

    Path("table.md").write_text(markdown(read(Path("service.json"))))

Commands with a layout of their own stand in ``SECTIONS``; ``generic`` shows all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
BEST = "In the row of the best, here and below, each stands at its own best concurrency."
SMOKE = "> **SMOKE: sizes so small that these figures mean nothing. Do not quote them.**"


def markdown(record: Record) -> str:
    """Title, command, machine and the tables of a run."""
    sections = SECTIONS.get(record["command"], generic)
    banner = [SMOKE] if record["smoke"] else []
    return (
        "\n\n".join([f"## {record['command']}", *banner, *_head(record), *sections(record["figures"])]) + "\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """One Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def service(figures: Record) -> list[str]:
    """Throughput, ratios, latency and stages of ``derma-bench service``."""
    levels = figures["levels"]
    names = list(levels[0]["contenders"])
    others = names[1:]
    rates = [[one["concurrency"], *(_rate(one["contenders"][n]) for n in names)] for one in levels]
    rates.append(["best", *(_spread(figures["best"][n], 1) for n in names)])
    parts = [
        f"Images a second: median of the repeats (smallest to largest). {BEST}",
        table(["concurrency", *names], rates),
    ]
    # Measured by runs before 2026-12.
    if idle := max(one.get("idle_cores", 0.0) for level in levels for one in level["contenders"].values()):
        parts.append(f"While one was measured, the other services together used {idle:.2f} cores at most.")
    if others:
        rows = [[one["concurrency"], *(_spread(one["ratios"].get(n), 2) for n in others)] for one in levels]
        rows.append(["best", *(_spread(figures["best_ratios"].get(n), 2) for n in others)])
        parts += [
            "Our throughput over theirs, measured by turns: median of the ratios (smallest to largest).",
            table(["concurrency", *(f"over {n}" for n in others)], rows),
        ]
    return [*parts, *_latencies(levels, names), *_stages(levels)]


def inside(levels: Sequence[Record]) -> dict[str, list[tuple[int, Record]]]:
    """Triton's statistics at each concurrency: of ours, which comes first, and of variants."""
    found: dict[str, list[tuple[int, Record]]] = {}
    for level in levels:
        ours, *others = level["contenders"].items()
        for name, one in ((ours[0], level), *others):
            if "stages_ms" in one:
                found.setdefault(name, []).append((level["concurrency"], one))
    return found


def saturate(figures: Record) -> list[str]:
    """Rate, probes and latency below saturation of ``derma-bench saturate``."""
    limit, rate = figures["p99_limit_ms"], figures["rate"]
    sentence = (
        f"Highest Poisson arrival rate with p99 under {limit:g} ms and no failure: **{rate:.1f} a second**"
    )
    if not figures["complete"]:
        sentence += " (the probes were used up before it was found to 5 %)"
    columns = ["load", "answered", "failures", "p50 ms", "p95 ms", "p99 ms", "p99 under the limit"]
    rows = [
        [f"{p['rate']:.1f}/s", *_answers(p), "yes" if p["passed"] else "no"] for p in figures["load_curve"]
    ]
    rows.append(["one at a time", *_answers(figures["alone"]), ""])
    if again := figures.get("confirmed"):
        verdict = "yes" if again["passed"] else "no"
        rows.append([f"{again['offered']:.1f}/s with other arrivals", *_answers(again), verdict])
    if below := figures.get("at_share"):
        rows.append([f"{below['offered']:.1f}/s, {below['share']:.0%} of the highest", *_answers(below), ""])
    return [f"{sentence}.", table(columns, rows)]


def generic(figures: Record) -> list[str]:
    """Figures of a command without a layout of its own: lists of records as tables, the rest as they are."""
    parts, single = [], []
    for key, value in figures.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            columns = list(dict.fromkeys(name for one in value for name in one))
            parts += [f"{key}:", table(columns, [[_cell(one.get(c, "")) for c in columns] for one in value])]
        else:
            single.append([key, _cell(value)])
    return [*([table(["figure", "value"], single)] if single else []), *parts]


SECTIONS: dict[str, Callable[[Record], list[str]]] = {"service": service, "saturate": saturate}


def _head(record: Record) -> list[str]:
    machine, subject = record["hardware"], record["subject"]
    flags = ", ".join(machine["flags"])
    gpu = "; ".join(machine["gpu"]) or "no GPU"
    lines = [
        f"- `{record['command_line']}`",
        f"- {record['time']}, commit {record['git_commit'] or 'unknown'}",
        f"- {machine['cpu']}, {machine['cores']} cores ({flags}), {machine['memory_gib']} GiB, {gpu}",
        f"- load average before: {machine['load_average']}; Python {machine['python']}, {_versions(record)}",
    ]
    if subject:
        lines.append(f"- {_subject(subject)}")
    lines += [f"- {name}: ours with `{snippet}`" for name, snippet in subject.get("variants", {}).items()]
    return ["\n".join(lines)]


def _versions(record: Record) -> str:
    shown = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "torch", "numpy", "pillow")
    return ", ".join(f"{name} {record['versions'][name]}" for name in shown if name in record["versions"])


def _subject(subject: Record) -> str:
    digest = str(subject.get("bundle_digest", ""))[:12]
    text = f"{subject.get('bundle_name', '')} ({digest}), {subject.get('precision', '')}"
    if "server" in subject:
        text += f" on {', '.join(subject['accelerators']) or 'ONNX Runtime'}, {subject['server']}"
    if "payloads" in subject:
        text += f"; {subject['payloads']}"
    for key, facts in subject.items():
        if key.endswith("_facts"):
            text += f"; {key.removesuffix('_facts')}: {', '.join(f'{k} {v}' for k, v in facts.items())}"
    if subject.get("same_bundle") is False:
        name, other = subject["rival_bundle_name"], subject["rival_bundle_digest"][:12]
        text += f"; **the others serve another bundle: {name} ({other})**"
    return text


def _rate(contender: Record) -> str:
    failures = f", {contender['failures']} failed" if contender["failures"] else ""
    return _spread(contender["throughput"], 1) + failures


def _spread(values: Mapping[str, float] | None, digits: int) -> str:
    if not values:
        return "-"
    middle, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({low} to {high})"


def _latencies(levels: Sequence[Record], names: Sequence[str]) -> list[str]:
    timed = [n for n in names if levels[0]["contenders"][n]["latency_ms"]]
    rows = [[one["concurrency"], *(_quantiles(one["contenders"][n]) for n in timed)] for one in levels]
    return ["Latency in ms: p50 / p95 / p99.", table(["concurrency", *timed], rows)] if timed else []


def _quantiles(contender: Record) -> str:
    return " / ".join(f"{value:.1f}" for value in contender["latency_ms"].values()) or "-"


def _stages(levels: Sequence[Record]) -> list[str]:
    parts = []
    for name, rows in inside(levels).items():
        stages, models = list(rows[0][1]["stages_ms"]), list(rows[0][1]["occupancy"])
        columns = ["concurrency", *(f"images a batch: {model}" for model in models), *stages]
        lines = [
            [
                concurrency,
                *(f"{one['occupancy'].get(model, 0):.2f}" for model in models),
                *(f"{one['stages_ms'].get(stage, 0):.2f}" for stage in stages),
            ]
            for concurrency, one in rows
        ]
        caption = f"{name}, by Triton's statistics: batch occupancy, and ms a request by stage."
        parts += [caption, table(columns, lines)]
    return parts


def _answers(load: Record) -> list[str]:
    failures = ", ".join(f"{count} {kind}" for kind, count in load["failures"].items()) or "0"
    quantiles = [f"{load['latency_ms'][q]:.1f}" if load["latency_ms"] else "-" for q in ("p50", "p95", "p99")]
    return [str(load["completed"]), failures, *quantiles]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
