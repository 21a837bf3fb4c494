"""The specialists of examples/specialists, exported as users would: `export --target T`."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open
from support.scenes import scene_pixels, write_scene

from eosfm_edge.device.cross import require_tools
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.ensemble import INPUT_ADAPTER, InputBand
from eosfm_edge.formats.precision import Precision
from eosfm_edge.targets.registry import find_target

SPECIALISTS = Path(__file__).parents[2] / "examples" / "specialists"
NAMES = sorted(path.parent.name for path in SPECIALISTS.glob("*/model.safetensors"))
SAR = ("VV", "VH")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::eosfm_edge.ensemble.model.SpecialistSkippedWarning"),
]


def imported(name: str, folder: Path) -> Path:
    """Import one specialist, or the ensemble of six, for stored values of 1e-4."""
    shared = SPECIALISTS / "ensemble.safetensors"
    with safe_open(shared, framework="pt") as file:
        bands = INPUT_ADAPTER.validate_json(file.metadata()["input"])
        six = file.metadata()["specialists"].split(",")
    options = ImportOptions(input=bands)
    sources = [*(SPECIALISTS / one / "model.safetensors" for one in six), shared]
    if name != "six":
        sources = [SPECIALISTS / name / "model.safetensors"]
        if name == "landcover_sar":
            bands = tuple(InputBand(name=band, scale=1e-2, offset=-25) for band in SAR)
        options = ImportOptions(input=bands, normalisation="none", fusion="none")
    import_ensemble(sources, folder / name, options)
    return folder / name


def scene(name: str, folder: Path) -> Path:
    bands = SAR if name == "landcover_sar" else S2_L1C
    return write_scene(folder / "scene.tif", scene_pixels(len(bands), 320, 320), bands)


@pytest.mark.cross
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", [*NAMES, "six"])
def test_a_committed_specialist_is_exported_for_the_jetson(
    name: str, precision: Precision, tmp_path: Path
) -> None:
    try:
        require_tools()
    except UserError as error:
        pytest.skip(str(error))
    options = ExportOptions(target=find_target("jetson-orin-nano"), precision=precision, tile=64)
    bundle = tmp_path / "b.eosfm"
    export_bundle(imported(name, tmp_path), scene(name, tmp_path), bundle, options)
    manifest = read_manifest(bundle)
    assert manifest.precision == precision
    onnx = next(parity for parity in manifest.parity if parity.backend == "onnxruntime")
    assert onnx.agreement is not None


@pytest.mark.parametrize("name", [*NAMES, "six"])
def test_a_committed_specialist_is_exported_in_bf16_for_the_cpu(name: str, tmp_path: Path) -> None:
    options = ExportOptions(precision="bf16", tile=64)
    bundle = tmp_path / "b.eosfm"
    export_bundle(imported(name, tmp_path), scene(name, tmp_path), bundle, options)
    assert read_manifest(bundle).precision == "bf16"
