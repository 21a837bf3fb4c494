"""Int8 with a scale for each input: against the format's page, and what such scales gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from support.chains import Array, image_of, narrow, random_ensemble, spec_of, write
from support.programs import ISAS
from support.speck import SPECK, register
from support.tiers import thorough
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.errors import UserError
from eosfm_edge.native import gguf_writer
from eosfm_edge.native.binding import Model
from eosfm_edge.native.header import EosfmError
from eosfm_edge.network import native_files as native
from eosfm_edge.network.deployed import DeployedEncoder
from eosfm_edge.network.folding import Block, Matrix, Network, fold
from eosfm_edge.network.rounding import Quantisation, Rounding

BAD_BUNDLE = 3
ODD = register(
    "odd", (1, 2, 1, 1), (8, 24, 40, 56)
)  # widths that no instruction set's lanes divide all


@dataclass(frozen=True)
class Int8Scales:
    """The scales of an int8 matrix: of inputs, with their zero point, and of outputs."""

    input_scales: Array
    zero: int
    weight_scale: Array


Scales = Mapping[str, Int8Scales]


@dataclass
class ByThePage:
    """A folded specialist computed as ``export/bundle.md`` says, in int8 where there are scales.

    Attributes:
        network: what is computed.
        scales: by the matrices' names; the hidden tensor is bf16 if there are any.
        seen: of each matrix without scales, its inputs (N, inputs).
    """

    network: Network
    scales: Scales = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)

    def levels(self, image: Tensor) -> list[Array]:
        """Return the levels (C, H, W) of physical values (bands, height, width)."""
        found = []
        for s, stage in enumerate(self.network.stages):
            if s == 0:
                kernel = torch.from_numpy(stage.entry.weight.T.copy())
                kernel = kernel.reshape(-1, self.network.view.bands, 4, 4)
                stem = functional.conv2d(image, kernel, torch.from_numpy(stage.entry.bias), 4)
                x = normed(stem.permute(1, 2, 0), *map(torch.from_numpy, self.network.stem_norm))
            else:
                height, width, channels = x.shape
                patches = normed(x).reshape(height // 2, 2, width // 2, 2, channels)
                patches = patches.permute(0, 2, 1, 3, 4).flatten(2)
                x = self._product(f"stages.{s}.downsample", stage.entry, patches)
            for b, block in enumerate(stage.blocks):
                x = x + self._block(f"stages.{s}.blocks.{b}", block, x)
            found.append(x.permute(2, 0, 1).numpy())
        return found

    def _block(self, name: str, block: Block, x: Tensor) -> Tensor:
        channels = x.shape[-1]
        kernel = torch.from_numpy(block.depthwise.T.copy()).reshape(channels, 1, 7, 7)
        bias = torch.from_numpy(block.depthwise_bias)
        y = functional.conv2d(x.permute(2, 0, 1), kernel, bias, padding=3, groups=channels)
        hidden = functional.gelu(
            self._product(f"{name}.fc1", block.fc1, normed(y.permute(1, 2, 0)))
        )
        norms = hidden.square().sum((0, 1)).sqrt()
        factor = 1 + torch.from_numpy(block.grn) * norms / (norms.mean() + 1e-6)
        if self.scales:
            hidden = hidden.bfloat16().float()
        return self._product(f"{name}.fc2", block.fc2, hidden * factor)

    def _product(self, name: str, matrix: Matrix, rows: Tensor) -> Tensor:
        weight, bias = torch.from_numpy(matrix.weight), torch.from_numpy(matrix.bias)
        scales = self.scales.get(name)
        if scales is None:
            self.seen[name] = rows.flatten(0, 1)
            return rows @ weight + bias
        inputs = torch.from_numpy(scales.input_scales)
        outputs = torch.from_numpy(scales.weight_scale)
        q = (rows / inputs).round().add(scales.zero).clamp(0, 255)
        integers = (weight * inputs[:, None] / outputs).round().clamp(-127, 127)
        return (q - scales.zero) @ integers * outputs + bias


def normed(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-6)


def scales_of(network: Network, seen: Tensor, name: str, each: Tensor) -> Int8Scales:
    """Spread the levels over inputs, which are divided by ``each`` one's own number before."""
    (matrix,) = (m for n, m in matrices(network) if n == name)
    low, high = min(float((seen / each).min()), 0.0), max(float((seen / each).max()), 0.0)
    step = (high - low) / 255
    inputs = (each * step).numpy().astype(np.float32)
    largest = np.abs(matrix.weight * inputs[:, None]).max(axis=0)
    return Int8Scales(inputs, round(-low / step), (largest / 127).astype(np.float32))


def matrices(network: Network) -> list[tuple[str, Matrix]]:
    """Return those that may be int8, with their names."""
    found = []
    for s, stage in enumerate(network.stages):
        if s > 0:
            found.append((f"stages.{s}.downsample", stage.entry))
        for b, block in enumerate(stage.blocks):
            found.append((f"stages.{s}.blocks.{b}.fc1", block.fc1))
            found.append((f"stages.{s}.blocks.{b}.fc2", block.fc2))
    return found


@torch.inference_mode()
def levels_of(ensemble: Ensemble, image: Array, scales: Scales | None = None) -> list[Array]:
    physical = physical_units(ensemble.spec, torch.from_numpy(image[np.newaxis]))[0]
    return ByThePage(fold(ensemble.encoders[0]), scales or {}).levels(physical)


@torch.inference_mode()
def seen_by(ensemble: Ensemble, image: Array) -> dict[str, Tensor]:
    page = ByThePage(fold(ensemble.encoders[0]))
    page.levels(physical_units(ensemble.spec, torch.from_numpy(image[np.newaxis]))[0])
    return page.seen


def write_with(folder: Path, ensemble: Ensemble, scales: Scales) -> Path:
    def change(encoder: DeployedEncoder) -> None:
        for name, layer in encoder.layers().items():
            if name in scales:
                one = scales[name]
                inputs, outputs = map(torch.from_numpy, (one.input_scales, one.weight_scale))
                layer.rounding = Rounding(inputs, Quantisation(1.0, one.zero), outputs)

    return write(folder, ensemble, 64, "int8", change)


def run_on(isa: str, bundle: Path, image: Array) -> list[Array]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EOSFM_ISA", isa)
        with Model(bundle) as model, model.context(threads=2) as context:
            return context.run(list(image))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3)])
def test_any_scales_are_computed_as_the_page_says(tmp_path: Path, seed: int, isa: str) -> None:
    """Each input's scale is off the common one by a random factor, the corners' of a patch too."""
    ensemble = random_ensemble(spec_of((3,), 3, backbone=ODD, normalisation="none"), seed)
    narrow(ensemble, seed)
    image = image_of(3, 64, 64, seed)
    generator = torch.Generator().manual_seed(seed)
    network = fold(ensemble.encoders[0])
    scales = {
        name: scales_of(
            network, seen, name, 2 ** (4 * torch.rand(seen.shape[1], generator=generator) - 2)
        )
        for name, seen in seen_by(ensemble, image).items()
    }
    expected = levels_of(ensemble, image, scales)
    got = run_on(isa, write_with(tmp_path / "b", ensemble, scales), image)
    # A value that is rounded the other way moves those behind it: level by level, there are more.
    for ratio, least in zip(map(sqnr_db, got, expected), (60, 40, 30, 25), strict=True):
        assert ratio >= least


def ill_conditioned(seed: int) -> Ensemble:
    """Build a network of which every other input of every matrix is 30 times as large as the rest.

    The weights of the rest are as much larger, so that all matter.
    """
    ensemble = random_ensemble(spec_of((3,), 3, backbone=SPECK, normalisation="none"), seed)
    with torch.no_grad():
        for name, module in ensemble.encoders[0].named_modules():
            if name.endswith("conv_dw") or name == "stem_1" or name.endswith("downsample.1"):
                module.weight[::2] *= 30  # type: ignore[index]
                module.bias[::2] *= 30  # type: ignore[index]
            elif name.endswith((".norm", "downsample.0")):
                module.weight[1::2] *= 30  # type: ignore[index]
            elif name.endswith("fc1"):
                assert isinstance(module, nn.Conv2d)
                module.weight[::2] *= 30
            elif name.endswith("fc2"):
                assert isinstance(module, nn.Conv2d)
                module.weight[:, 1::2] *= 30
                module.weight /= 30
    return ensemble


@pytest.mark.parametrize("isa", ISAS)
def test_scales_of_their_own_help_inputs_of_different_sizes(tmp_path: Path, isa: str) -> None:
    gains = []
    for seed in range(3):
        ensemble = ill_conditioned(seed)
        image = image_of(3, 64, 64, seed)
        network, expected = fold(ensemble.encoders[0]), levels_of(ensemble, image)
        ratios = []
        for kind in ("common", "own"):
            scales = {}
            for name, rows in seen_by(ensemble, image).items():
                sizes = rows.abs().amax(0).clamp_min(1e-6)
                each = sizes if kind == "own" else torch.ones_like(sizes)
                scales[name] = scales_of(network, rows, name, each)
            bundle = write_with(tmp_path / f"{kind}{seed}", ensemble, scales)
            ratios.append(min(map(sqnr_db, run_on(isa, bundle, image), expected)))
        gains.append(ratios[1] - ratios[0])
    assert np.mean(gains) >= 6 and min(gains) > 0, gains


def spoiled(index: int, value: float) -> Callable[[Array], Array]:
    def spoil(array: Array) -> Array:
        array = array.copy()
        array[index] = value
        return array

    return spoil


@pytest.mark.parametrize("name", ["stages.1.downsample", "stages.2.blocks.1.fc1"])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoiled(3, 0.0), "has a scale of 0 for input 3, expected one above 0"),
        (spoiled(0, -0.5), "has a scale of -0.5 for input 0, expected one above 0"),
        (spoiled(5, np.nan), "has values that are not finite"),
        (spoiled(5, np.inf), "has values that are not finite"),
        (spoiled(-1, 300), "has a zero point of 300, expected a whole number from 0 to 255"),
        (spoiled(-1, 3.5), "has a zero point of 3.5, expected a whole number from 0 to 255"),
        (spoiled(-1, -1), "has a zero point of -1, expected a whole number from 0 to 255"),
        (lambda array: array[1:], "is .*, expected "),
        (lambda array: array[-2:], "is 2, expected "),
    ],
    ids=["zero", "negative", "nan", "infinite", "300", "3.5", "-1", "short", "version 1"],
)
def test_scales_that_cannot_be_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    spoil: Callable[[Array], Array],
    sentence: str,
) -> None:
    add = native.add_tensor

    def spoiling(writer: GGUFWriter, tensor: str, array: Array) -> None:
        add(writer, tensor, spoil(array) if tensor == f"{name}.input" else array)

    monkeypatch.setattr(native, "add_tensor", spoiling)
    ensemble = random_ensemble(spec_of((1,), 1, backbone=SPECK))
    bundle = write(tmp_path / "b", ensemble, 32, "int8")
    with pytest.raises(EosfmError, match=sentence) as error:
        Model(bundle)
    assert error.value.status == BAD_BUNDLE
    assert f"{name}.input" in str(error.value)


def test_files_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_writer, "FORMAT_VERSION", 1)
    bundle = write(tmp_path / "b", random_ensemble(spec_of((1,), 1, backbone=SPECK)), 32)
    with pytest.raises(UserError, match=r"is of version 1 .*, expected 2: export the bundle again"):
        Model(bundle)
