"""The AMX kernels with their tiles computed in software, on machines without AMX."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.programs import ALL_ISAS, X86_ISAS, build, processor_has, run

pytestmark = [
    pytest.mark.cross,
    pytest.mark.skipif(ALL_ISAS is not X86_ISAS, reason="this machine is no x86-64"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_programs_run_on_emulated_amx(specks: dict[str, Path], precision: str) -> None:
    if not processor_has("avx512-bf16"):
        pytest.skip("this processor has no AVX-512 with BF16")
    options = ("EOSFM_TESTS=ON", "EOSFM_EMULATE_AMX=ON")
    programs = build("amx", *options, targets=["test_api", "two_contexts"])
    run([programs / "test_api", specks[precision]], {"EOSFM_ISA": "amx"})
    run([programs / "two_contexts", specks[precision]], {"EOSFM_ISA": "amx"})
