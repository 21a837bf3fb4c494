"""Files of two exports under one roof, as an interrupted copy leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.chains import random_ensemble, spec_of, write

from eosfm_edge.native.binding import Model
from eosfm_edge.native.header import EosfmError

SPEC = spec_of((2, 2), 2, backbone="speck")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_specialist_of_another_export_is_refused(tmp_path: Path, precision: str) -> None:
    """Of other weights, or of the same in another precision."""
    bundle = write(tmp_path / "b", random_ensemble(SPEC), 32)
    seed = 1 if precision == "fp32" else 0
    other = write(tmp_path / "other", random_ensemble(SPEC, seed), 32, precision)  # type: ignore[arg-type]
    shutil.copy(other / "specialists" / "s1.gguf", bundle / "specialists" / "s1.gguf")
    with pytest.raises(EosfmError, match=r"specialists/s1\.gguf is of another export"):
        Model(bundle)


def test_the_same_specialist_written_again_belongs(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b", random_ensemble(SPEC), 32)
    again = write(tmp_path / "again", random_ensemble(SPEC), 32)
    shutil.copy(again / "specialists" / "s1.gguf", bundle / "specialists" / "s1.gguf")
    with Model(bundle) as model, model.context(threads=1) as context:
        assert context.verify()[0]
