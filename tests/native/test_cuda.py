"""The CUDA engine on the CPU: kernels over a shim, and all of it on a stand-in for the driver."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.chains import narrow, random_ensemble, spec_of, write
from support.programs import ROOT, run
from support.tiers import thorough

from eosfm_edge.device.gpu import first_gpu
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import FusionMode, NormalisationMode

# dB against the CPU engine: of the engine as it is, and of it in float32. An int8 bundle is int8 in
# both. Codes flip where a value lies at the edge between two, and carry on: the CPU engine's own
# levels of a random int8 Atto move by 45 dB when pixels change by 2e-7 of their value. So codes are
# compared layer by layer too, by test_cuda_codes.
LEAST = {"fp32": ("60", "110"), "bf16": ("60", "110"), "int8": ("45", "45")}


def test_cuda_kernels_match_double_precision_under_every_schedule(programs: Path) -> None:
    assert "all checks hold" in run([programs / "test_cuda_kernels"])


def check_engine(programs: Path, bundle: Path, precision: str, *step: str) -> None:
    standin = programs / "libcuda_standin.so"
    command = [programs / "test_cuda_engine", standin, bundle, *LEAST[precision], *step]
    assert "all checks hold" in run(command)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_cuda_gives_the_known_answer_and_survives_every_failure(
    programs: Path, specks: dict[str, Path], precision: str
) -> None:
    check_engine(programs, specks[precision], precision, "1" if precision == "fp32" else "9")


@pytest.mark.parametrize("precision", ["int8", *thorough("fp32")])
@pytest.mark.parametrize(
    ("fusion", "normalisation", "projection"),
    [
        ("none", "batch", True),
        ("none", "layer", False),
        ("conv1x1", "batch", False),
        ("mlp", "layer", True),
        ("addition", "none", True),
        ("multiplication", "batch", True),
    ],
)
def test_cuda_runs_every_fusion_over_runs_of_unequal_shapes(
    programs: Path,
    tmp_path: Path,
    precision: str,
    fusion: FusionMode,
    normalisation: NormalisationMode,
    projection: bool,
) -> None:
    spec = spec_of(
        (3, 13), 13, backbone="speck", fusion=fusion, normalisation=normalisation,
        projection=projection,
    )  # fmt: skip
    widths = {"fused": (24, 40, 56, 72)} if fusion in ("conv1x1", "mlp") else {}
    projected = {"projected": ((20, 24, 28, 36),) * 2} if projection else {}
    ensemble = random_ensemble(spec, **widths, **projected)
    narrow(ensemble, seed=1)
    check_engine(programs, write(tmp_path / "b", ensemble, 64, precision), precision)


@pytest.mark.parametrize("precision", ["int8", *thorough("fp32")])
def test_cuda_streams_batches_with_the_results_of_single_tiles(
    programs: Path, specks: dict[str, Path], precision: str
) -> None:
    command = [programs / "test_cuda_stream", programs / "libcuda_standin.so", specks[precision]]
    assert "all checks hold" in run(command)


def test_cuda_codes_of_int8_are_the_cpu_engines(programs: Path, specks: dict[str, Path]) -> None:
    assert "all checks hold" in run([programs / "test_cuda_codes", specks["int8"]])


@pytest.mark.slow
def test_cuda_codes_of_a_trained_specialist_are_the_cpu_engines(
    programs: Path, tmp_path: Path
) -> None:
    ensemble = random_ensemble(spec_of((3,), 3, backbone="atto"))
    trained = ROOT / "examples" / "specialists" / "eurosat_rgb" / "model.safetensors"
    ensemble.encoders[0].load_state_dict(load_file(trained))
    bundle = write(tmp_path / "b", ensemble, 64, "int8")
    assert "all checks hold" in run([programs / "test_cuda_codes", bundle])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_cuda_runs_a_network_of_full_size(programs: Path, tmp_path: Path, precision: str) -> None:
    ensemble = random_ensemble(spec_of((3, 13), 13, backbone="atto"))
    check_engine(programs, write(tmp_path / "b", ensemble, 64, precision), precision)


def test_the_driver_says_which_gpu_there_is(programs: Path, tmp_path: Path) -> None:
    found = first_gpu(programs / "libcuda_standin.so")
    assert (found.name, found.compute_capability) == ("Stand-in", "8.0")
    assert found.memory > 0 and found.cuda.partition(".")[0] in ("12", "13")
    with pytest.raises(UserError, match="driver cannot be loaded"):
        first_gpu(tmp_path / "libcuda.so.1")
