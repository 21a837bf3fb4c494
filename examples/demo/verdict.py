"""Print what compression saved and cost, by a bundle's manifest: ``python verdict.py BUNDLE``."""

import sys
from pathlib import Path

from eosfm_edge.formats.bundle import read_manifest

manifest = read_manifest(Path(sys.argv[1]))
records = [record for one in manifest.specialists for record in one.pruning]
before = sum(record.macs_before for record in records)
after = sum(record.macs_after for record in records)
megabytes = sum(entry.size for entry in manifest.files.values()) / 1e6
worst = min(level.sqnr_db for parity in manifest.parity for level in parity.levels)
print(
    f"{before / after:.1f} times fewer multiply-accumulates, {manifest.precision}, "
    f"{megabytes:.1f} MB; int8 leaves {worst:.0f} dB of signal to noise at worst"
)
