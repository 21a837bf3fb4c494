"""Twenty-five specialists pruned and repaired, or calibrated, in one run: time and peak memory.

    python benchmarks/twenty_five.py prune --scene SCENE [--ratio 0.5] [--tiles 32]
    python benchmarks/twenty_five.py calibrate --scene SCENE [--tiles 32]

The five of the demo's specialists that run on thirteen Sentinel-2 bands, each five times over
with noise of a hundredth of its weights, as an ensemble with fusion `none`. SCENE is a Sentinel-2
L1C scene, such as the one that `make demo` leaves. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import eosfm_edge as ee
from eosfm_edge.ensemble.store import load_ensemble, save_ensemble
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.runtime.bench import machine_facts

HERE = Path(__file__).parent
SPECIALISTS = HERE.parent / "examples" / "specialists"
NAMES = ("eurosat_rgb", "mining_rgb", "landuse_s2", "landcover_l2a", "clouds_6band")
COPIES = 5
NOISE = 0.01  # of a tensor's standard deviation


def make(folder: Path) -> Path:
    """Write the ensemble of twenty-five."""
    five = folder / "five"
    sources = [SPECIALISTS / name / "model.safetensors" for name in NAMES]
    said = ee.ImportOptions(bands="S2L1C", scale=1e-4, nodata=0, norm="none", fusion="none")
    ee.import_ensemble(sources, five, said)
    ensemble = load_ensemble(five)
    random = torch.Generator().manual_seed(0)
    specs, states = [], []
    for copy in range(COPIES):
        for spec, encoder in zip(ensemble.spec.specialists, ensemble.encoders, strict=True):
            name = f"{spec.name}_{copy}"
            weights = f"specialists/{name}.safetensors"
            specs.append(spec.model_copy(update={"name": name, "weights": weights}))
            states.append({k: _noisy(v, random) for k, v in encoder.state_dict().items()})
    described = EnsembleSpec.model_validate(
        {**ensemble.spec.model_dump(), "specialists": [s.model_dump() for s in specs]}
    )
    shared_state = {"encoder_selector.specialists_weights": torch.ones(len(specs))}
    save_ensemble(folder / "many", described, states, shared_state)
    return folder / "many"


def _noisy(tensor: Tensor, random: torch.Generator) -> Tensor:
    spread = tensor.std() if tensor.numel() > 1 else torch.zeros(())
    return tensor + NOISE * spread * torch.randn(tensor.shape, generator=random)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("prune", "calibrate"))
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--tiles", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        many = make(Path(scratch))
        command = [
            str(Path(sys.executable).with_name("eosfm-edge")), options.verb, str(many),
            "--data", str(options.scene), "--tiles", str(options.tiles),
            "-o", str(Path(scratch) / "output"),
        ]  # fmt: skip
        if options.verb == "prune":
            command += ["--ratio", str(options.ratio)]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.stderr)
    print(done.stdout)
    result = {
        "machine": machine_facts().model_dump(mode="json"),
        "specialists": len(NAMES) * COPIES,
        **({"ratio": options.ratio} if options.verb == "prune" else {}),
        "tiles": options.tiles,
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
        "printed": done.stdout.splitlines(),
    }
    path = HERE / "results" / f"twenty-five-{options.verb}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{seconds:.0f} s, {result['peak_gb']:.1f} GB at most; all of it is in {path}")


if __name__ == "__main__":
    main()
