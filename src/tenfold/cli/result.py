"""What a compression came to, as JSON values and as a table: the report's numbers in short."""

from pathlib import Path
from typing import Any

from rich.console import RenderableType

from tenfold.cli.console import count, share, table
from tenfold.evaluate import Evaluation
from tenfold.report import Report


def result_data(report: Report, files: dict[str, Path], seconds: float | None = None) -> dict[str, Any]:
    """The numbers before and after, and where the files are."""
    accuracies = {"dense": report.dense, "compressed": _compressed(report), "finetuned": report.small if report.history else None}
    return {
        "model": report.model,
        "parameters": {"before": report.size_before.parameters, "after": report.size_after.parameters},
        "size_bytes": {"before": report.size_before.size_bytes, "after": report.size_after.size_bytes},
        "flops": None if report.flops_before is None else {"before": report.flops_before, "after": report.flops_after},
        "latency_ms": [{"batch": race.batch, "before": race.dense_ms, "after": race.small_ms} for race in report.races],
        "accuracy": {name: None if one is None else one.accuracy for name, one in accuracies.items()},
        "loss": {name: None if one is None else one.loss for name, one in accuracies.items()},
        "n_factorised": sum(layer.format is not None for layer in report.layers),
        "n_layers": len(report.layers),
        "files": {name: str(path) for name, path in files.items()},
        "seed": report.seed,
        "seconds": None if seconds is None else round(seconds, 1),
    }


def result_tables(report: Report) -> tuple[RenderableType, ...]:
    """The numbers for a person."""
    before, after = report.size_before, report.size_after
    rows = [
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}", share(after.parameters, before.parameters)),
        ("bytes with buffers", f"{before.size_bytes:,}", f"{after.size_bytes:,}", share(after.size_bytes, before.size_bytes)),
    ]
    if report.flops_before is not None:
        rows.append(
            ("FLOP a sample", count(report.flops_before), count(report.flops_after), share(report.flops_after, report.flops_before))
        )
    rows += [(f"ms at batch {r.batch}", f"{r.dense_ms:.3g}", f"{r.small_ms:.3g}", share(r.small_ms, r.dense_ms)) for r in report.races]
    if report.dense is not None and report.small is not None:
        name = "accuracy" if report.dense.accuracy is not None else "loss"
        compressed = _compressed(report)
        if report.history:
            if compressed is not None:
                rows.append((f"{name}, not trained", _quality(report.dense), _quality(compressed), _gap(report.dense, compressed)))
            rows.append((f"{name}, fine-tuned", _quality(report.dense), _quality(report.small), _gap(report.dense, report.small)))
        else:
            rows.append((name, _quality(report.dense), _quality(report.small), _gap(report.dense, report.small)))
    n = sum(layer.format is not None for layer in report.layers)
    title = f"{report.model}: {n} of {len(report.layers)} layers factorised"
    return (table(("", "dense", "compressed", "change"), rows, title=title, numbers=("dense", "compressed", "change")),)


def _compressed(report: Report) -> Evaluation | None:
    """The evaluation of the compressed model before any training."""
    return report.uncorrected if report.history else report.small


def _quality(one: Evaluation) -> str:
    return f"{one.accuracy:.2%}" if one.accuracy is not None else f"{one.loss:.4f}"


def _gap(dense: Evaluation, other: Evaluation) -> str:
    if dense.accuracy is not None and other.accuracy is not None:
        return f"{(other.accuracy - dense.accuracy) * 100:+.2f} points"
    return f"{other.loss - dense.loss:+.4f}"
