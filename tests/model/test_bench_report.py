"""Records, tables and plots, of figures that were made up."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from derma_bench.cli import main
from derma_bench.hardware import machine
from derma_bench.load.journal import Load
from derma_bench.report import record, table
from derma_bench.report.plots import draw, stages, throughput
from derma_bench.service.comparison import summary


def answers(rate, ms):
    quantiles = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), ms)
    return Load("open", rate, 1.0, 10, 10, rate, {}, quantiles).to_dict()


def service_record(smoke=False, variants=()):
    rounds = []
    for concurrency in (1, 2):
        for name, rate in (("derma", 40), *((name, 20) for name in variants), ("baseline", 10)):
            row = answers(rate * concurrency, 30.0)
            row |= {"contender": name, "concurrency": concurrency, "repeat": 0}
            if name != "baseline":
                row |= {"occupancy": {"decode": 1.0, "network": 72 / rate}}
                row |= {"stages_ms": {"client and gRPC": 2.0, "decode: infer": 4.0, "network: infer": 24.0}}
            rounds.append(row)
    subject = {"bundle_name": "derma-mini", "bundle_digest": "ab" * 32, "precision": "fp32"}
    if variants:
        subject["variants"] = dict.fromkeys(variants, "max_batch_size: 4")
    arguments = ["service", "--bundle=/somewhere/derma-mini"]
    return record.make(
        "service", summary(rounds, "derma"), rounds, smoke=smoke, subject=subject, arguments=arguments
    )


def saturate_record():
    probes = [
        {"rate": rate, "passed": rate < 60, **answers(rate, ms)}
        for rate, ms in ((20, 12), (40, 20), (80, 90))
    ]
    figures = {
        "p99_limit_ms": 50.0,
        "rate": 40,
        "complete": False,
        "alone": answers(1, 10),
        "load_curve": probes,
        "at_share": {"share": 0.7, **answers(28, 15)},
    }
    return record.make("saturate", figures, probes, smoke=True, arguments=["saturate"])


def engine_record():
    rows = [{"engine": "openvino-bf16", "batch": 8, "fraction": 0.8, "gflops": 333.0}]
    return record.make("engine", {"threads": 2, "engines": rows}, [], smoke=False, arguments=["engine"])


def test_a_record_survives_its_file_and_names_no_folder(tmp_path):
    made = service_record()
    record.write(tmp_path / "runs" / "a.json", made)
    assert record.read(tmp_path / "runs" / "a.json") == json.loads(json.dumps(made))
    assert made["command_line"] == "derma-bench service --bundle=derma-mini"
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "a.json"]


def test_arguments_inside_the_checkout_are_told_from_it():
    assert record.portable(str(record.ROOT / "training" / "bundles")) == "training/bundles"
    assert record.portable("/elsewhere/photographs") == "photographs"
    assert record.portable("--url=127.0.0.1:8001") == "--url=127.0.0.1:8001"


def test_a_machine_is_described_and_not_named():
    text = json.dumps(machine())
    assert machine()["cores"] >= 1
    assert os.uname().nodename not in machine().values()
    assert "/" not in text.replace("N/A", "")


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"schema_version": 99}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json"):
        record.read(tmp_path / "a.json")


def test_tables_state_ratios_and_spread():
    text = table.markdown(service_record())
    assert "| best | 80.0 (80.0 to 80.0) | 20.0 (20.0 to 20.0) |" in text
    assert "| 1 | 4.00 (4.00 to 4.00) |" in text
    assert "| 2 | 1.00 | 1.80 | 2.00 | 4.00 | 24.00 |" in text
    assert "SMOKE" not in text
    assert "derma-mini (abababababab), fp32" in text


def test_the_best_row_says_that_it_mixes_concurrencies():
    assert "each stands at its own best concurrency" in table.markdown(service_record())


def test_variants_are_named_with_their_snippet_and_have_tables_of_their_own():
    text = table.markdown(service_record(variants=["small | batches"]))
    assert "- small | batches: ours with `max_batch_size: 4`" in text
    assert r"| concurrency | over small \| batches | over baseline |" in text
    derma, small = (text.index(f"{name}, by Triton's statistics") for name in ("derma", "small | batches"))
    assert "| 2 | 1.00 | 1.80 | 2.00 |" in text[derma:small]
    assert "| 2 | 1.00 | 3.60 | 2.00 |" in text[small:]


def test_every_contender_is_drawn():
    """There are fewer markers and colours than contenders may be."""
    names = [f"variant {number}" for number in range(12)]
    figures = service_record(variants=names)["figures"]
    axes = Figure().add_subplot()
    throughput(axes, figures)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["derma", *names, "baseline"]
    axes = Figure().add_subplot()
    stages(axes, figures)
    assert len(axes.get_xticklabels()) == 2 * (1 + len(names))


def test_smoke_is_said():
    assert "SMOKE" in table.markdown(service_record(smoke=True))
    assert "SMOKE" in table.markdown(saturate_record())


def test_commands_without_a_layout_have_tables_too():
    text = table.markdown(engine_record())
    assert "| openvino-bf16 | 8 | 0.8 | 333 |" in text
    assert "| threads | 2 |" in text


def test_report_writes_tables_and_plots_that_are_png(tmp_path):
    runs = {"service": service_record(), "saturate": saturate_record(), "engine": engine_record()}
    for name, made in runs.items():
        record.write(tmp_path / f"{name}.json", made)
    out = tmp_path / "report"
    paths = [str(tmp_path / f"{name}.json") for name in runs]
    done = CliRunner().invoke(main, ["report", *paths, "--out", str(out)])
    assert done.exit_code == 0, done.output
    plots = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert plots == [
        "engine/engine-ceiling.png",
        "saturate/saturate-latency.png",
        "service/service-stages.png",
        "service/service-throughput.png",
    ]
    text = (out / "table.md").read_text()
    for plot in plots:
        assert f"({plot})" in text
        with Image.open(out / plot) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_a_run_without_figures_has_no_plots(tmp_path):
    assert draw(record.make("decode", {"decoders": []}, [], smoke=False), tmp_path) == []
