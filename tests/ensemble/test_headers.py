"""Files of an ensemble, taken into another: what they say of themselves stays with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.specimens import TILE, encoder_of, ensemble_of, write_ensemble
from support.speck import SPECK
from support.weights import S2_INPUT, encoder_state, refusal

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.specialist import build_encoder, recognise
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bands import RGB, Band
from eosfm_edge.formats.ensemble import (
    Provenance,
    PruningRecord,
    SelectionSpec,
    Shape,
    read_spec,
)

RGB_BANDS = tuple(Band(name=name) for name in RGB)
HIDDEN = Shape(widths=(8, 16, 24, 16), hidden=((24,), (64,), (8, 96), (16,)))
WIDTH = Shape(widths=(8, 8, 16, 8), hidden=((24,), (32,), (8, 64), (16,)))
RECORD = PruningRecord(
    created_with="test", parent_sha256="1" * 64, plan_sha256="2" * 64, scope="hidden",
    criterion="taylor", ranking="block", macs_before=2.0, macs_after=1.0, repair=("fc2",), seed=0,
    tiles=4, tiles_sha256="3" * 64,
)  # fmt: skip


def described(folder: Path, shape: Shape | None = None) -> Path:
    """Write an ensemble whose specialists say all that they can, as `prune` leaves one."""
    ensemble = ensemble_of(selection=SelectionSpec(k=1))
    said = Provenance(source="x", licence="CC BY 4.0 — «Ü»", citation='Nobody: "A\\B", 2026')
    specialists = list(ensemble.spec.specialists)
    for i, name in enumerate(("one", "two")):
        specialists[i] = specialists[i].model_copy(
            update={
                "name": name,
                "bands": RGB_BANDS,
                "weights": f"specialists/{name}.safetensors",
                "provenance": said,
                "shape": shape,
                "pruning": (RECORD,) if shape else (),
            }
        )
    ensemble.spec = ensemble.spec.model_copy(update={"specialists": tuple(specialists)})
    if shape:
        ensemble.encoders = torch.nn.ModuleList(
            [encoder_of(i, shape=shape) for i in range(len(specialists))]
        )
    return write_ensemble(folder, ensemble)


def sources(folder: Path) -> list[Path]:
    return [folder / f"specialists/{name}.safetensors" for name in ("one", "two")]


@pytest.mark.parametrize("shape", [None, HIDDEN], ids=["whole", "pruned"])
def test_an_ensembles_files_import_as_the_same_ensemble(
    tmp_path: Path, shape: Shape | None
) -> None:
    first = described(tmp_path / "first", shape)
    imported = import_ensemble(
        [*sources(first), first / "ensemble.safetensors"], tmp_path / "again"
    )
    before, after = read_spec(first), imported.spec
    same = {"input", "adaptation", "normalisation", "projection", "selection", "fusion"}
    assert after.model_dump(include=same) == before.model_dump(include=same)
    for one, other in zip(before.specialists, after.specialists, strict=True):
        kept = {"name", "backbone", "bands", "shape", "pruning", "weights_sha256"}
        assert other.model_dump(include=kept) == one.model_dump(include=kept)
        assert other.provenance.licence == one.provenance.licence
        assert other.provenance.citation == one.provenance.citation
        assert other.provenance.source_sha256 == one.weights_sha256
    image = torch.rand(1, 3, TILE, TILE)
    with torch.inference_mode():
        levels = load_ensemble(tmp_path / "again")(image)
        expected = load_ensemble(first)(image)
    assert all(torch.equal(a, b) for a, b in zip(levels, expected, strict=True))


def test_equal_ensembles_are_equal_files(tmp_path: Path) -> None:
    one, ensemble = described(tmp_path / "a"), load_ensemble(tmp_path / "a")
    other = write_ensemble(tmp_path / "b", ensemble)
    for path in ("ensemble.safetensors", "specialists/one.safetensors"):
        assert (one / path).read_bytes() == (other / path).read_bytes()
        with safe_open(one / path, framework="pt") as file:
            assert file.metadata()  # still a safetensors file
    text = (one / "specialists/one.safetensors").read_bytes()
    places = [text.index(f'"{key}":'.encode()) for key in ("backbone", "bands", "citation", "name")]
    assert places == sorted(places)


def test_bands_without_names_stay_without(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "e", ensemble_of())
    with safe_open(folder / "specialists/s0.safetensors", framework="pt") as file:
        assert "bands" not in file.metadata()


@pytest.mark.parametrize("shape", [HIDDEN, WIDTH], ids=["hidden", "width"])
def test_pruned_specialists_are_known_by_their_tensors(tmp_path: Path, shape: Shape) -> None:
    encoder = build_encoder(f"convnextv2_{SPECK}", 13, shape)
    found = recognise(encoder.state_dict())
    assert found is not None
    assert (found.backbone, found.in_chans, found.shape) == (f"convnextv2_{SPECK}", 13, shape)
    torch.save(encoder.state_dict(), tmp_path / "e.pth")
    spec = import_ensemble(
        [tmp_path / "e.pth"], tmp_path / "out", ImportOptions(input=S2_INPUT)
    ).spec
    assert spec.specialists[0].shape == shape
    image = torch.rand(1, 13, 32, 32)
    with torch.inference_mode():
        levels = load_ensemble(tmp_path / "out").encoders[0](image)
        assert all(map(torch.equal, levels, encoder.eval()(image)))


def test_a_damaged_pruned_specialist_is_named(tmp_path: Path) -> None:
    state = build_encoder(f"convnextv2_{SPECK}", 3, HIDDEN).state_dict()
    state["stages_1.blocks.0.mlp.fc2.weight"] = torch.zeros(16, 56, 1, 1)
    torch.save(state, tmp_path / "e.pth")
    message = refusal(tmp_path, [tmp_path / "e.pth"])
    assert "stages_1.blocks.0.mlp.fc2.weight has shape (16, 56, 1, 1)" in message
    assert "pruned" in message


def test_a_record_of_pruning_that_is_none_is_refused(tmp_path: Path) -> None:
    state = encoder_state(13, backbone=f"convnextv2_{SPECK}")
    save_file(state, tmp_path / "e.safetensors", {"pruning": "[{}]"})
    message = refusal(tmp_path, [tmp_path / "e.safetensors"])
    assert "e.safetensors: 'pruning' in its header" in message
