"""The evaluation as a Markdown table.

print(table(report))
"""

from __future__ import annotations

from typing import Any

from derma_saliency.evaluation.statistics import MEASURES

HEADER = {
    "energy": "energy in mask ↑",
    "pointing": "pointing game ↑",
    "deletion": "deletion AUC ↓",
    "insertion": "insertion AUC ↑",
}
STAGES = ("head", "block 11", "block 8", "block 4", "block 0")


def table(report: dict[str, Any]) -> str:
    """Means, paired differences from the centred Gaussian, and the sanity checks."""
    counts = {m: next(iter(report["maps"].values()))[m]["images"] for m in MEASURES}
    lines = [
        f"{report['bundle']} ({report['bundle_digest'][:12]}), text: the {report['target']}; "
        f"localisation on {counts['energy']} images, deletion and insertion on {counts['deletion']}.",
        "",
        _row(["map", *HEADER.values()]),
        _row(["---"] * (1 + len(HEADER))),
        *(_row([_name(report, name), *_means(found)]) for name, found in report["maps"].items()),
        "",
        "Minus the centred Gaussian, image by image (95 % interval by bootstrap over images):",
        "",
        *_differences(report, "gaussian"),
        "",
        f"Minus {report['default']}, the default, in the same way:",
        "",
        *_differences(report, report["default"]),
        "",
        "Rank correlation of maps: with those of other texts "
        f"({report['amount']['sensitivity']} images), and with the true map once the tower is random from "
        f"its top down to ... ({report['amount']['cascade']} images). Near 0 is good.",
        "",
        _row(["map", "other texts", *_stages(report)]),
        _row(["---"] * (2 + len(_stages(report)))),
        *(_row([_name(report, name), *_sanity(report, name)]) for name in report["prompt_sensitivity"]),
    ]
    return "\n".join(lines) + "\n"


def _differences(report: dict[str, Any], rival: str) -> list[str]:
    return [
        _row(["map", *HEADER.values()]),
        _row(["---"] * (1 + len(HEADER))),
        *(
            _row([_name(report, name), *(_difference(found[m][f"minus_{rival}"]) for m in MEASURES)])
            for name, found in report["maps"].items()
            if name != rival
        ),
    ]


def _sanity(report: dict[str, Any], name: str) -> list[str]:
    cascade = report["cascade"][name]
    other = report["prompt_sensitivity"][name]["mean"]
    return [f"{value:.2f}" for value in (other, *(cascade[stage] for stage in _stages(report)))]


def _stages(report: dict[str, Any]) -> list[str]:
    known = next(iter(report["cascade"].values()))
    return [stage for stage in STAGES if stage in known]


def _name(report: dict[str, Any], name: str) -> str:
    return f"**{name}** (default)" if name == report["default"] else name


def _means(found: dict[str, Any]) -> list[str]:
    return [f"{found[measure]['mean']:.3f}" for measure in MEASURES]


def _difference(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['mean']:+.3f} ({low:+.3f} to {high:+.3f})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
