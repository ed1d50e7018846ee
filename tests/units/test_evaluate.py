"""Evaluation against predictions made by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tenfold.evaluate import Evaluation, evaluate


def data(n: int = 103, n_classes: int = 4) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 6, generator=generator), torch.randint(n_classes, (n,), generator=generator))


def network(n_classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, n_classes))


def test_accuracy_and_loss_are_means_over_all_samples():
    model = network().eval()
    inputs, targets = data().tensors
    output = model(inputs)
    found = evaluate(model, data(), batch_size=25)
    assert found.n == 103
    assert found.accuracy == pytest.approx((output.argmax(1) == targets).double().mean().item(), abs=1e-12)
    assert found.loss == pytest.approx(F.cross_entropy(output, targets).item(), rel=1e-5)
    assert evaluate(model, DataLoader(data(), 10)).accuracy == found.accuracy


def test_agreement_with_a_reference():
    model, other = network(seed=1).eval(), network(seed=2).eval()
    inputs, _ = data().tensors
    found = evaluate(model, data(), reference=other)
    assert found.agreement == pytest.approx((model(inputs).argmax(1) == other(inputs).argmax(1)).double().mean().item(), abs=1e-12)
    assert evaluate(model, data(), reference=model).agreement == 1
    assert evaluate(model, data()).agreement is None


def test_modes_come_back_and_nothing_changes():
    model, reference = network().train(), network().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, data(), reference=reference)
    assert [module.training for module in model] == [True, False, True, True]
    assert all(module.training for module in reference.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_modes_come_back_after_an_error():
    model = network().train()
    message = r"does not run on the evaluation data, whose batch is \(3, 5\) of torch.float32: .* cannot be multiplied .*; inputs as in"
    with pytest.raises(RuntimeError, match=message):
        evaluate(model, TensorDataset(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long)))
    assert all(module.training for module in model.modules())


def test_values_have_a_mean_squared_error_and_no_accuracy():
    inputs, _ = data().tensors
    targets = inputs @ torch.ones(6, 1)
    model = nn.Linear(6, 1)
    found = evaluate(model, TensorDataset(inputs, targets), 25, reference=model)
    assert (found.accuracy, found.agreement) == (None, None)
    assert found.loss == pytest.approx(F.mse_loss(model(inputs), targets).item(), rel=1e-5)


@pytest.mark.parametrize("n_axes", [1, 2])
def test_one_logit_is_that_of_class_one_of_two(n_axes):
    inputs, labels = data(n_classes=2).tensors
    model, other = network(1).eval(), network(1, seed=1).eval()
    found = evaluate(model, (inputs, labels.reshape(-1, *[1] * (n_axes - 1))), 25, reference=other)
    logits = model(inputs)[:, 0]
    assert found.accuracy == pytest.approx(((logits > 0) == (labels == 1)).double().mean().item(), abs=1e-12)
    assert found.agreement == pytest.approx(((logits > 0) == (other(inputs)[:, 0] > 0)).double().mean().item(), abs=1e-12)
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, labels.float()).item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"the label 3, but the model has 2 classes, 0 to 1; .*, or give targets as float where they are"):
        evaluate(model, (inputs, labels + 2))


def test_a_loss_of_the_callers_own():
    inputs, labels = data(n_classes=2).tensors
    model, targets = network(1).eval(), labels.float()[:, None]
    found = evaluate(model, (inputs, targets), 25, loss=F.binary_cross_entropy_with_logits)
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(model(inputs), targets).item(), rel=1e-5)
    assert (found.accuracy, found.n, found.has_own_loss) == (None, 103, True)
    smooth = evaluate(network().eval(), data(), loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    assert smooth.accuracy == evaluate(network().eval(), data()).accuracy and smooth.has_own_loss


class Tagger(nn.Module):
    """Token ids -> a class for every token, and a state that nobody asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.out(self.embedding(ids)), None


def test_sequences_of_ids_count_every_position_with_a_target():
    ids = torch.arange(24).reshape(4, 6) % 9
    targets = ids % 3
    targets[0, :2] = -100
    model = Tagger()
    found = evaluate(model, TensorDataset(ids, targets), batch_size=3)
    output = model(ids)[0]
    counted = targets >= 0
    assert found.n == 22
    assert found.accuracy == pytest.approx((output.argmax(-1) == targets)[counted].double().mean().item(), abs=1e-12)
    assert found.loss == pytest.approx(F.cross_entropy(output[counted], targets[counted]).item(), rel=1e-5)


def test_labels_in_bytes_count_as_those_of_other_types():
    model = network(200).eval()
    inputs, targets = torch.randn(40, 6), torch.arange(140, 180)
    assert (targets == 256 - 100).any()  # what -100 is in a byte
    assert evaluate(model, (inputs, targets.byte())) == evaluate(model, (inputs, targets))
    with pytest.raises(ValueError, match="label 156, but the model has 4 classes"):
        evaluate(network(4), (inputs[:1], torch.tensor([156], dtype=torch.uint8)))


def test_progress_is_told():
    seen = []
    evaluate(network(), data(), 50, progress=lambda *what: seen.append(what))
    assert seen == [("evaluating", 1, 3), ("evaluating", 2, 3), ("evaluating", 3, 3)]


def test_a_stream_is_read_once_also_for_its_progress():
    class Stream:
        n_passes = 0

        def __iter__(self):
            self.n_passes += 1
            return iter([data().tensors] * 2)

    stream, seen = Stream(), []
    evaluate(network(), stream, progress=lambda *what: seen.append(what))
    assert stream.n_passes == 1 and seen == [("evaluating", 1, 1), ("evaluating", 2, 2)]


def test_evaluation_reads_well():
    assert str(Evaluation(0.8766, 0.4175, 5000, 0.9)) == "accuracy 87.66%, loss 0.4175, agreement 90.00% on 5,000 predictions"
    assert str(Evaluation(None, 0.5, 3)) == "loss 0.5000 on 3 predictions"


def test_labels_out_of_range():
    inputs, targets = data().tensors
    with pytest.raises(
        ValueError, match=r"the targets have the label 4, but the model has 4 classes, 0 to 3; number the labels from 0, or give"
    ):
        evaluate(network(), TensorDataset(inputs, targets + 1))


def test_data_without_targets():
    with pytest.raises(ValueError, match=r"targets of type NoneType; evaluation needs tensors \(input, target\): give labelled data"):
        evaluate(network(), data().tensors[0])


def test_empty_data():
    with pytest.raises(ValueError, match="have no samples; at least one batch is needed: check"):
        evaluate(network(), TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"all targets are -100, which marks places without one; at least one is needed: check the labels"):
        evaluate(network(), TensorDataset(torch.zeros(3, 6), torch.full((3,), -100)))
