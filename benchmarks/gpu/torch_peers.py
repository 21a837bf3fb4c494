"""PyTorch's ways to run a bundle's networks on a GPU: eager, CUDA graphs and torch.compile.

The networks have the bundle's shapes and random weights, since only their time is asked for. They
are named as timm names them, so that a test can give them timm's weights and compare.

Peers are given an easier task than the engine: they compute the encoders alone, without
normalisation and fusion, in fp16 throughout (also LayerNorm and GRN's sums), in the memory layout
that suits them (channels last). They copy as many bytes to and from the host as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
MODES = ("eager", "CUDA graph", "torch.compile")


@dataclass(frozen=True)
class Network:
    """The shapes of one specialist.

    Attributes:
        runs: the image's bands that each run of it takes.
        depths, widths: of the stages.
        hidden: of the blocks, stage after stage.
    """

    runs: list[list[int]]
    depths: list[int]
    widths: list[int]
    hidden: list[int]


class Norm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Grn(nn.Module):
    """Global response normalisation of (N, H, W, C): Woo et al., arXiv 2301.00808."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.bias = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        norms = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + torch.addcmul(self.bias, self.weight, x * (norms / (norms.mean(-1, True) + EPS)))


class Mlp(nn.Module):
    """The two linear layers of a block, of (N, H, W, C)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.grn = nn.Linear(width, hidden), Grn(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.grn(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Depthwise convolution, LayerNorm, MLP and the way around them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.mlp = nn.LayerNorm(width, EPS), Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.conv_dw(x).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm(rows)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Downsampling, but for the first, and blocks."""

    def __init__(self, before: int, width: int, hidden: list[int]) -> None:
        super().__init__()
        halve = (Norm(before), nn.Conv2d(before, width, 2, 2)) if before else ()
        self.downsample = nn.Sequential(*halve)
        self.blocks = nn.Sequential(*(Block(width, one) for one in hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """ConvNeXtV2 of four stages; gives the levels (N, C, H, W) after each."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        widths, hidden = network.widths, iter(network.hidden)
        self.stem_0 = nn.Conv2d(len(network.runs[0]), widths[0], 4, 4)
        self.stem_1 = Norm(widths[0])
        for stage, (depth, width) in enumerate(zip(network.depths, widths, strict=True)):
            own = [next(hidden) for _ in range(depth)]
            self.add_module(f"stages_{stage}", Stage(widths[stage - 1] if stage else 0, width, own))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem_1(self.stem_0(x))
        levels = []
        for stage in range(4):
            x = self.get_submodule(f"stages_{stage}")(x)
            levels.append(x)
        return levels


class Ensemble(nn.Module):
    """All runs of all specialists; gives as many channels of each level as the bundle has."""

    def __init__(self, networks: list[Network], channels: list[int]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Encoder(network) for network in networks)
        self.networks, self.channels = networks, channels

    def forward(self, image: Tensor) -> list[Tensor]:
        sets = [
            encoder(image[:, bands])
            for encoder, network in zip(self.encoders, self.networks, strict=True)
            for bands in network.runs
        ]
        levels = [torch.cat(level, 1) for level in zip(*sets, strict=True)]
        return [level[:, :count] for level, count in zip(levels, self.channels, strict=True)]


@dataclass(frozen=True)
class Peer:
    """One way to run them.

    Attributes:
        name: of the way.
        run: from the host's memory to the host's memory; returns when the levels are there.
    """

    name: str
    run: Callable[[], None]


def peers(
    networks: list[Network],
    channels: list[int],
    bands: int,
    tile: int,
    batch: int,
    modes: Sequence[str] = MODES,
) -> Iterator[Peer]:
    """Give ways for images (batch, bands, tile, tile); torch.compile takes minutes."""
    model: Any = Ensemble(networks, channels).half().cuda().eval()
    model = model.to(memory_format=torch.channels_last)
    image = torch.randn(batch, bands, tile, tile).half().pin_memory()
    held = image.cuda().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        places = [torch.empty(level.shape).half().pin_memory() for level in model(held)]
        for mode in modes:
            call = _prepared(model, held, mode)

            def run(call: Callable[[], list[Tensor]] = call) -> None:
                with torch.inference_mode():
                    held.copy_(image, non_blocking=True)
                    for place, level in zip(places, call(), strict=True):
                        place.copy_(level, non_blocking=True)
                    torch.cuda.synchronize()

            yield Peer(f"torch fp16, {mode}, batch {batch}", run)


def _prepared(model: Any, held: Tensor, mode: str) -> Callable[[], list[Tensor]]:
    """Return the model on what is held, as a mode runs it, warmed up."""
    if mode == "eager":
        return lambda: model(held)  # type: ignore[no-any-return]
    if mode == "torch.compile":
        compiled = torch.compile(model, mode="max-autotune")
        for _ in range(3):  # compiles, then records its CUDA graphs
            compiled(held)
        return lambda: compiled(held)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        levels = model(held)

    def replay() -> list[Tensor]:
        graph.replay()
        return levels  # type: ignore[no-any-return]

    return replay


def kernel_ms(call: Callable[[], Any], runs: int = 20) -> dict[str, Any]:
    """Return milliseconds a run of each kernel, and the span from first to last, as CUPTI saw them.

    ``call`` may use the GPU without PyTorch: the whole process is watched.
    """
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(runs):
            call()
        torch.cuda.synchronize()
    found: dict[str, float] = {}
    launches = 0
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name] = found.get(event.name, 0.0) + event.device_time / 1e3 / runs
            launches += not event.name.startswith(("Memcpy", "Memset"))
    return {"kernels": found, "launches": launches / runs, "sum": sum(found.values())}
