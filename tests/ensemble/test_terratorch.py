"""A checkpoint that TerraTorch itself writes, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.ensemble import InputBand


def test_a_checkpoint_of_terratorch_gives_its_own_levels(tmp_path: Path) -> None:
    pytest.importorskip("terratorch")
    lightning = pytest.importorskip("lightning.pytorch")
    from terratorch.tasks import ClassificationTask

    arguments = {
        "backbone": "timm_convnextv2_atto",
        "backbone_pretrained": False,
        "backbone_in_chans": 13,
        "decoder": "IdentityDecoder",
        "num_classes": 3,
    }
    task = ClassificationTask(
        model_args=arguments, model_factory="EncoderDecoderFactory", loss="ce", lr=1e-3
    )
    chips = [{"image": torch.rand(13, 64, 64), "label": torch.tensor(i % 3)} for i in range(4)]
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        default_root_dir=tmp_path, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(task, torch.utils.data.DataLoader(chips, batch_size=2))
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    bands = tuple(InputBand(name=name) for name in S2_L1C)
    options = ImportOptions(input=bands, normalisation="none")
    import_ensemble([tmp_path / "trained.ckpt"], tmp_path / "out", options)
    image = torch.rand(2, 13, 64, 64)
    with torch.inference_mode():
        levels, theirs = load_ensemble(tmp_path / "out")(image), task.eval().model.encoder(image)
    for level, expected in zip(levels, theirs, strict=True):
        torch.testing.assert_close(level, expected)
