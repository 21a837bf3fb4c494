"""Writes the fuzzer's seeds: python runtime/tests/make_corpus.py (after a change of the format)."""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

import support.speck  # noqa: E402, F401  (the backbone of these bundles)
from support.chains import narrow, random_ensemble, spec_of, write  # noqa: E402

SEEDS = {
    "fp32": ({"fusion": "conv1x1"}, {"fused": (8, 9, 10, 11)}),
    "bf16": ({"fusion": "mlp", "normalisation": "none"}, {"fused": (8, 9, 10, 11)}),
    "int8": ({"fusion": "none", "normalisation": "layer", "projection": True},
             {"projected": ((12, 12, 20, 8),)}),
}  # fmt: skip


def main() -> None:
    """Write a seed for each precision, as fuzz_bundle.cc reads them."""
    for precision, (chain, widths) in SEEDS.items():
        ensemble = random_ensemble(spec_of((1,), 1, backbone="speck", **chain), **widths)
        narrow(ensemble, seed=1)
        with tempfile.TemporaryDirectory() as folder:
            bundle = write(Path(folder) / "b", ensemble, 32, precision)
            first = (bundle / "chain.gguf").read_bytes()
            second = (bundle / "specialists" / "s0.gguf").read_bytes()
        (HERE / "corpus" / precision).write_bytes(struct.pack("<I", len(first)) + first + second)


if __name__ == "__main__":
    main()
