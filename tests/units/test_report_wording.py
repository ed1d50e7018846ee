"""The words of a report are true and readable."""

from dataclasses import replace

import pytest
import torch
from report_cases import RACE, everything, pair

from tenfold.report import report
from tenfold.report.wording import ratio_text, short, size_text, time_text


def test_summary_says_what_got_worse_behind_a_but():
    result, _, _ = everything()
    slow = replace(result, races=(RACE, replace(RACE, batch=32, speedup=1.5, speedup_low=1.4, speedup_high=1.6, small_min_ms=0.6)))
    text = slow.summary
    assert "1.5x the speed at batch 32" in text.split("but")[0] and "0.50x the speed at batch 1" in text.split("but")[1]
    assert any("It got slower at batch 1:" in line for line in slow.notes)
    unclear = replace(result, races=(replace(RACE, speedup=0.8, speedup_high=1.2),))
    assert "0.80x the speed at batch 1 (no clear difference)" in unclear.summary.split("but")[1]
    same = replace(result, races=(replace(RACE, speedup=1.0),))
    assert "1.00x the speed at batch 1 (no clear difference)" in same.summary


def test_words_say_what_was_not_measured(tmp_path):
    dense, small = pair()
    result = report(dense, small, tmp_path)
    assert (result.flops_before, result.dense, result.races, result.command) == (None, None, (), None)
    assert "Accuracy was not measured: no labelled data were given." in result.facts and "Time was not measured." in result.facts
    assert (tmp_path / "report.html").read_text("utf-8").count("not measured") >= 2
    assert "no plan was given, so the reason is not known" in result.layers[0].reason


def test_a_loss_of_the_callers_own_is_not_called_a_squared_error(tmp_path):
    model = torch.nn.Linear(4, 2)
    data = (torch.zeros(3, 4), torch.zeros(3, 2))
    made = report(model, model, tmp_path, data=data, latency=False, loss=torch.nn.L1Loss())
    assert made.dense.loss == pytest.approx(model.bias.abs().mean().item())
    assert any(line.startswith("Loss ") and line.endswith(" on 3 samples.") for line in made.facts)  # of two values each
    assert "squared error" not in (tmp_path / "report.html").read_text().lower()


def test_a_larger_model_is_not_called_smaller(tmp_path):
    dense, small = pair()
    result = report(small, dense, tmp_path, latency=False)
    assert result.summary == "No fewer parameters."


def test_slow_layers_and_noise_are_named():
    result, _, _ = everything()
    rows = tuple(replace(row, races=(RACE,)) if row.format else row for row in result.layers)
    notes = replace(result, layers=rows, races=(replace(RACE, dense_ms=9.0),)).notes
    assert "At batch 1, 2 of 2 compressed layers on their own are slower than dense: second (0.50x), out (0.50x)." in notes
    assert (
        "Slower layers are kept for their FLOP or parameters; a plan that measures times leaves out those slower at its inputs' batch."
        in notes
    )
    assert any(
        "medians up to 10.0x their minima" in line and "The fastest runs alone give 0.47x the speed at batch 1" in line for line in notes
    )


def test_the_error_after_fine_tuning_is_explained():
    result, _, _ = everything()
    assert "after fine-tuning" in result.error_note
    assert "after fine-tuning" not in replace(result, history=None).error_note
    assert "Outputs were preserved, not weights" in replace(result, metric="output").error_note


def test_a_plan_with_other_flops_is_contradicted():
    result, _, _ = everything()
    assert not any("predicted" in line for line in result.notes)
    other = replace(result, flops_planned=(2 * 10**6, 10**6), flops_before=2 * 10**6, flops_after=900_000)
    assert "The plan predicted 1 M FLOP a sample; 900 k were counted." in other.notes
    assert not any("predicted" in line for line in replace(other, flops_before=10**6).notes)  # it was made for other inputs


def test_numbers_read_well():
    assert [short(v) for v in (0, 999.4, 999.6, 1234, 2_500_000, 3.17e9)] == ["0", "999", "1 k", "1.23 k", "2.5 M", "3.17 G"]
    assert [size_text(v) for v in (12, 526_000)] == ["12 bytes", "526 kB"]
    assert [time_text(v) for v in (0.01, 5.0, 1500.0)] == ["10 us", "5 ms", "1.5 s"]
    assert [ratio_text(v) for v in (12.3, 2.04, 1.03, 0.456)] == ["12x", "2.0x", "1.03x", "0.46x"]
