"""Did TensorRT compute in the precision that was asked for? It may fall back without a word.

What is asked of each product is in the parsed network; what is done, in the listing of the built
engine's layers, whose names hold those of the products.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.precision import DevicePrecision

# Products that may be computed wider than asked, of all that are asked narrower than fp32. TensorRT
# leaves some very narrow layers out; a fallback takes all of a kind.
MOST_FALLEN_BACK = 0.05

# From narrow to wide, with the words of TensorRT 8 to 11 and TensorRT-RTX.
_WORDS: dict[DevicePrecision, str] = {
    "int8": r"Int8|INT8",
    "fp8": r"FP8|Fp8|E4M3|Float8",
    "fp16": r"Half|FP16",
    "bf16": r"BFloat16|BF16|Bfloat16",
    "fp32": r"Float|FP32",
}
_TYPES: dict[str, DevicePrecision] = {
    "INT8": "int8",
    "FP8": "fp8",
    "HALF": "fp16",
    "BF16": "bf16",
    "FLOAT": "fp32",
}


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: which may be made of those of the graph's nodes.
        kind: ``gemm``; ``kgen`` is TensorRT's name for a generated kernel of pointwise operations.
        nodes: of the graph, that it says it is made of; TensorRT 8 does not say.
        precision: the narrowest type of its inputs, if it has any.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: DevicePrecision | None

    def computes(self, product: str) -> bool:
        """Return whether a node is the layer's, or among those that it is fused from."""
        # Names may be joined (``a + b``), and others append ``_myl`` and numbers.
        pattern = rf"(?:^|[ +(,]){re.escape(product)}(?=_myl|$|[ +),])"
        return product in self.nodes or re.search(pattern, self.name) is not None


@dataclass(frozen=True)
class Precisions:
    """The precisions requested for an engine's matmuls, and those it computes in.

    Attributes:
        asked: products by precision.
        done: the same, of those that the listing shows.
        fallen_back: products that are computed wider than asked.
        unseen: that no layer's name shows.
    """

    asked: Mapping[str, int]
    done: Mapping[str, int]
    fallen_back: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One-line summary."""
        parts = [f"{self.done.get(p, 0)} of {n} products in {p}" for p, n in self.asked.items()]
        unseen = f", {len(self.unseen)} that TensorRT does not list" if self.unseen else ""
        return ", ".join(parts) + unseen


def asked_precisions(module: Any, network: Any) -> dict[str, DevicePrecision]:
    """Return the precision of every matrix product and convolution of a parsed network, by name."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers: dict[str, Any] = {}
    for layer in layers:
        makers |= {layer.get_output(index).name: layer for index in range(layer.num_outputs)}
    kinds = module.LayerType
    asked = {}
    for layer in layers:
        if layer.type in (kinds.MATRIX_MULTIPLY, kinds.CONVOLUTION):
            tensor = layer.get_input(0)
            maker = makers.get(tensor.name)
            while maker is not None and maker.type == kinds.SHUFFLE:
                tensor = maker.get_input(0)
                maker = makers.get(tensor.name)
            if maker is not None and maker.type == kinds.DEQUANTIZE:
                tensor = maker.get_input(0)
            asked[layer.name] = _TYPES[tensor.dtype.name]
    return asked


def parse_listing(listing: str) -> list[Layer]:
    """Return the layers of an engine's information in the format ONELINE."""
    layers = []
    for line in listing.splitlines():
        found = re.match(r"Name: (.*?), LayerType: (\w*).*?Inputs: \[(.*)", line)
        if found:
            name, kind, rest = found.groups()
            inputs = re.split(r"\], (?:Constants|Outputs): ", rest)[0]
            nodes = tuple(re.findall(r"\[ONNX Layer: (.*?)\]", rest))
            layers.append(Layer(name, kind, nodes, _narrowest(inputs)))
    return layers


def _narrowest(inputs: str) -> DevicePrecision | None:
    # Names of tensors are not to be read as types.
    types = " ".join(re.findall(r"(?:Format/)?Datatype: ([^}]*)", inputs))
    for precision, words in _WORDS.items():
        if re.search(rf"\b(?:{words})\b", types):
            return precision
    return None


def _width(precision: DevicePrecision | None) -> int:
    return int(re.sub(r"\D", "", precision or "0"))


def compare_precisions(asked: Mapping[str, DevicePrecision], layers: Iterable[Layer]) -> Precisions:
    """Look for every product among the layers of an engine."""
    layers = [layer for layer in layers if layer.precision]
    done: Counter[str] = Counter()
    fallen_back, unseen = [], []
    for name, precision in asked.items():
        computing = [layer for layer in layers if layer.computes(name)]
        # A product may be cut into several layers, of which pointwise ones are its ends.
        computing = [layer for layer in computing if layer.kind != "kgen"] or computing
        found = max((layer.precision for layer in computing), key=_width, default=None)
        if found is None:
            unseen.append(name)
            continue
        done[found] += 1
        if _width(found) > _width(precision):
            fallen_back.append(name)
    return Precisions(dict(Counter(asked.values())), dict(done), tuple(fallen_back), tuple(unseen))


def require_precisions(found: Precisions) -> None:
    """Check that an engine computes in the requested precision.

    Raises:
        CheckFailedError: more than ``MOST_FALLEN_BACK`` of the products that are asked narrower
            than fp32 are computed wider, or the listing shows none of them.
    """
    narrow = sum(count for precision, count in found.asked.items() if precision != "fp32")
    if not narrow:
        return
    if len(found.unseen) == sum(found.asked.values()):
        raise CheckFailedError(
            "the engine's layers show none of its products, so that their precision is not known",
            expected="layers that are named after the graph's",
        )
    if len(found.fallen_back) > MOST_FALLEN_BACK * narrow:
        names: Sequence[str] = found.fallen_back
        raise CheckFailedError(
            f"TensorRT fell back: {found.summary}; wider than asked are {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
            expected=f"at most {MOST_FALLEN_BACK:.0%} of {narrow} products wider than asked",
            remedy="export in another --precision",
        )
