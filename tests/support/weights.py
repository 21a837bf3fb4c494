"""Encoder states and weight files that tests make for themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.ensemble import InputBand
from support.speck import SLIM

State = dict[str, torch.Tensor]

BACKBONE = f"convnextv2_{SLIM}"
WIDTHS = (8, 16, 24, 32)
S2_INPUT = tuple(InputBand(name=name, scale=1e-4, nodata=0) for name in S2_L1C)


def encoder_state(in_chans: int, seed: int = 0, backbone: str = BACKBONE) -> State:
    """Return an encoder's state with every tensor random: GRN's and biases start at zero."""
    return {key: value.clone() for key, value in _drawn(in_chans, seed, backbone).items()}


@cache
def _drawn(in_chans: int, seed: int, backbone: str) -> State:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            key: value + 0.1 * torch.randn(value.shape)
            for key, value in build_encoder(backbone, in_chans).state_dict().items()
        }


class Bomb:
    """Makes a directory when it is unpickled without care."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.crater),)


def write_pth(path: Path, wants: Sequence[int], backbone: str = BACKBONE) -> Path:
    """Write an EoS-FM ensemble file with one random specialist for each number of bands."""
    config = {"backbone": f"timm_{backbone}"}
    states = [(n, encoder_state(n, seed, backbone), config) for seed, n in enumerate(wants)]
    torch.save(states, path)
    return path


def refusal(folder: Path, sources: Sequence[Path], options: ImportOptions | None = None) -> str:
    """Return the message of an import into a folder that must fail and leave nothing there."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        import_ensemble(sources, folder / "out", options or ImportOptions(input=S2_INPUT))
    assert error.value.exit_code == ExitCode.WRONG_USE
    assert sorted(folder.rglob("*")) == before
    return str(error.value)
