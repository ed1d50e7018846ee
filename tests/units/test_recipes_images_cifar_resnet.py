"""cifar-resnet: the network, dense and factorised, a short training on packed images, and what is refused."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tenfold.bayes.factorized_weights import factorized_weights
from tenfold.format import Format
from tenfold.formats import CP, Tucker
from tenfold.nn import Conv2d
from tenfold.recipes.images import cifar_resnet
from tenfold.recipes.images.cifar_resnet import build, factorised_layers
from tenfold.recipes.options import DENSE, Options


def write_packed(place: Path, n: int) -> None:
    """Squares on dark ground whose colour says the class."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    random, files = np.random.RandomState(0), []
    for number in range(n):
        pixels = random.randint(0, 40, (32, 32, 3)).astype(np.uint8)
        pixels[8:24, 8:24, number % 2] = 220
        buffer = io.BytesIO()
        image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        place,
        header=files[0][:4],
        payload=np.concatenate([one[4:] for one in files]),
        offsets=np.cumsum([0, *(len(one) - 4 for one in files)]),
        labels=np.arange(n) % 2,
    )


def test_resnet_20_has_its_known_size() -> None:
    """0.27 M parameters (269,722 with the two values of each BatchNorm channel), 19 convolutions of which 18 are factorised."""
    model = build(DENSE, 0)
    assert sum(p.numel() for p in model.parameters()) == 269_722
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert len(factorised_layers()) == 18 and "first" not in factorised_layers()
    small = build("tucker:rank=0.5", 0)
    assert tuple(factorized_weights(small)) == factorised_layers()
    assert small.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_same_seed_gives_the_same_start() -> None:
    one, two, three = build("tucker:rank=2", 1), build("tucker:rank=2", 1), build("tucker:rank=2", 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_a_short_training(tmp_path: Path) -> None:
    write_packed(tmp_path / "cifar10" / "train_jpg.npz", 16)
    write_packed(tmp_path / "cifar10" / "test_jpg_even.npz", 12)
    options = Options(data=tmp_path, formats=("tucker:rank=3",), seeds=(0,), epochs=4, batch_size=8, temperature=1e-3)
    rows = cifar_resnet.run(options).data()["rows"]
    assert [row["way"] for row in rows] == ["dense", "automatic", "fixed", "null"]
    assert rows[1]["weights"] < rows[0]["weights"] and 0 <= rows[1]["accuracy"] <= 1


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_a_run_that_is_stopped_after_its_warm_up_goes_on_from_there(tmp_path: Path) -> None:
    """The dense steps are not repeated, the numbers are those of a run that nothing stopped, and no checkpoint is left."""
    write_packed(tmp_path / "train_jpg.npz", 16)
    write_packed(tmp_path / "test_jpg.npz", 12)
    seen: list[int] = []

    def stop(label: str, done: int, total: int) -> None:
        if "automatic" in label and done == total:
            raise KeyboardInterrupt

    def see(label: str, done: int, total: int) -> None:
        if "automatic" in label:
            seen.append(total)

    whole = Options(data=tmp_path, formats=("tucker:rank=3",), seeds=(0,), epochs=4, batch_size=8, out=tmp_path / "whole")
    first = cifar_resnet.run(dataclasses.replace(whole, progress=see)).data()["rows"]
    assert seen == [5] * 5 + [3] * 3
    killed = dataclasses.replace(whole, out=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        cifar_resnet.run(dataclasses.replace(killed, progress=stop))
    assert len(list(tmp_path.rglob("*.dense.ckpt"))) == 1
    seen.clear()
    again = cifar_resnet.run(dataclasses.replace(killed, progress=see)).data()["rows"]
    assert seen == [3] * 3
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in first]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_factorised_at_full_ranks_is_the_same_network() -> None:
    dense, x = build(DENSE, 0).eval(), torch.randn(2, 3, 32, 32)
    small = cifar_resnet.factorised("tucker:rank=1.0", dense)
    assert tuple(factorized_weights(small)) == factorised_layers()
    assert_close(small(x), dense(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", [CP(rank=3), Tucker(rank=3)])
def test_fixed_ranks_get_start_values(format: Format) -> None:
    """Of a usual size: a factor of zeros, which is what new ranks leave, would never learn."""
    layer = Conv2d(8, 8, 3, bias=False, format=format)
    for factor in layer.factorized.factors:
        nn.init.zeros_(factor)
    cifar_resnet.start(layer)
    assert 0.03 < float(layer.weight.detach().std()) < 0.5


def test_what_is_refused(tmp_path: Path) -> None:
    write_packed(tmp_path / "train_jpg.npz", 4)
    with pytest.raises(
        ValueError, match="there is no test file beside .*; test_jpg.npz or test_jpg_even.npz is needed in its folder: put it"
    ):
        cifar_resnet.run(Options(data=tmp_path))
    write_packed(tmp_path / "test_jpg.npz", 4)
    with pytest.raises(ValueError, match="there is no protocol 'six' for cifar-resnet; test or validation is needed: choose one of them"):
        cifar_resnet.run(Options(data=tmp_path, protocol="six"))
    with pytest.raises(ValueError, match="the format 'tucker:rank=2,in=4x4,out=4x4' has modes, but the convolutions have different sizes"):
        cifar_resnet.run(Options(data=tmp_path, formats=("tucker:rank=2,in=4x4,out=4x4",)))
