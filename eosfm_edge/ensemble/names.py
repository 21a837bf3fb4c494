"""Names of a ConvNeXtV2's tensors: every way of writing them becomes timm's feature list.

| who | stem | in a block | classifier |
|---|---|---|---|
| timm, ``features_only`` | ``stem_0`` | ``stages_0.blocks.1.mlp.fc1`` | |
| timm | ``stem.0`` | ``stages.0.blocks.1.mlp.fc1`` | ``head.fc`` |
| ConvNeXt-V2's authors | ``downsample_layers.0.0`` | ``stages.0.1.pwconv1`` | ``head`` |
| transformers | ``embeddings`` | ``encoder.stages.0.layers.1.pwconv1`` | ``classifier`` |

Wrappers of ``torch.compile``, FSDP and checkpointed activations are taken out wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BLOCK = r"(\bstages_\d\.blocks\.\d+\.)"
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", ""),
        (r"(\bencoders\.\d+\.)module\.", r"\1"),
        (r"\bstem\.(\d)\.", r"stem_\1."),
        (r"\bstages\.(\d)\.(blocks|downsample)\.", r"stages_\1.\2."),
        (r"\bdownsample_layers\.0\.(\d)\.", r"stem_\1."),
        (r"\bdownsample_layers\.(\d)\.(\d)\.", r"stages_\1.downsample.\2."),
        (r"\bencoder\.stages\.(\d)\.layers\.(\d+)\.", r"stages_\1.blocks.\2."),
        (r"\bencoder\.stages\.(\d)\.downsampling_layer\.(\d)\.", r"stages_\1.downsample.\2."),
        (r"\bembeddings\.patch_embeddings\.", "stem_0."),
        (r"\bembeddings\.layernorm\.", "stem_1."),
        (r"\bstages\.(\d)\.(\d+)\.", r"stages_\1.blocks.\2."),
        (_BLOCK + r"dwconv\.", r"\1conv_dw."),
        (_BLOCK + r"layernorm\.", r"\1norm."),
        (_BLOCK + r"pwconv([12])\.", r"\1mlp.fc\2."),
        (_BLOCK + r"grn\.(?:gamma|weight)$", r"\1mlp.grn.weight"),
        (_BLOCK + r"grn\.(?:beta|bias)$", r"\1mlp.grn.bias"),
    )
)
# What stands beside an encoder of another list than timm's features in its own namespace.
CLASSIFIER = re.compile(r"(?:head|fc|classifier|norm|norm_pre|layernorm|projectors|norms)\.")

# What other networks' names look like.
_OTHERS = (
    (
        "a ConvNeXt of the first version, which has no GRN",
        r"\bstages[._]\d\.(blocks\.)?\d+\.gamma$",
    ),
    ("a ResNet's", r"\blayer[1-4]\.\d+\.(conv\d|bn\d)\."),
    ("a Swin transformer's", r"\brelative_position_bias_table$"),
    ("a vision transformer's", r"\b(attn\.qkv|attention\.query|self_attention)\b"),
    ("an EfficientNet's", r"\bconv_stem\.weight$|\b_conv_stem\.weight$"),
    ("a MobileNet's or EfficientNet's", r"\bblocks\.\d+\.\d+\.conv_pwl?\."),
    ("a VGG's", r"\bfeatures\.\d+\.weight$"),
    ("a U-Net's", r"\b(inc|down1|up1)\.\S*double_conv\."),
)


def feature_list_name(name: str) -> str:
    """Return a tensor's name in timm's feature list; of what is no encoder, the name itself."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def looks_like(names: Iterable[str]) -> str | None:
    """Return what kind of network has such names, if it is a well-known one."""
    names = list(names)
    for kind, pattern in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            return kind
    return None
