"""Maps of heads on the CUDA engine, over its shim for CPUs, against the native engine's."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import support.speck  # noqa: F401  (the backbone of these bundles)
from support.programs import run

# Prints the codes of a map, of two rows of tiles with a hole, by the backends that are given.
PROGRAM = """
import sys
import numpy as np
from eosfm_edge.native.binding import Model
from eosfm_edge.native.stream import Stream, StreamBand

bundle, driver, out, *backends = sys.argv[1:]
rng = np.random.default_rng(0)
with Model(bundle) as model:
    info = model.describe()
    y, x = np.mgrid[0:50, 0:110] / 12
    waves = [np.sin(x * (1 + b) + y) + rng.normal(0, 0.2, x.shape) for b in range(info.bands)]
    image = np.stack(waves).astype("f4")
    image[-1, :20, 30:60] = -7
    for backend in backends:
        context = model.context(backends=backend, backend_library=driver, threads=1)
        assert context.backend == backend
        head = model.head("landuse")
        stream = Stream(context, 110, [StreamBand(np.dtype("f4"))] * len(image),
                        levels=[False] * 4, heads=[head])
        done = [0] * len(image)

        def feed():
            for band, rows in enumerate(image):
                done[band] += stream.push_rows(band, rows[done[band]:])
            return min(done) < 50

        whole = np.full((13, 28), 77, np.uint8)
        for patch in stream.patches(feed):
            part = patch.maps[0]
            h, w = part.classes.shape
            whole[part.row : part.row + h, part.column : part.column + w] = part.classes
        np.save(f"{out}/{backend}.npy", whole)
        stream.close()
        context.close()
"""


def test_the_cuda_engine_gives_the_native_engines_map(
    programs: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    # libeosfm looks for its backends beside itself.
    for library in (programs.parent / "libeosfm.so", programs / "libeosfm_cuda.so"):
        shutil.copy(library, tmp_path)
    run(
        [sys.executable, "-c", PROGRAM, specks["fp32"], programs / "libcuda_standin.so", tmp_path,
         "native", "cuda", "cuda-fp32"],
        {"EOSFM_LIBRARY": str(tmp_path / "libeosfm.so")},
    )  # fmt: skip
    native, cuda, exact = (
        np.load(tmp_path / f"{name}.npy") for name in ("native", "cuda", "cuda-fp32")
    )
    assert set(np.unique(native)) == {10, 20, 30, 255}
    assert ((native == 255) == (cuda == 255)).all()
    assert (native != exact).mean() < 0.003  # at most one cell, on the edge between two classes
    assert (native != cuda).mean() < 0.01  # half precision
