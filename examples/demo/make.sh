#!/bin/sh
# Make the demo's bundle again from what `make road` left: two of its pruned specialists, in int8.
#
# usage: sh examples/demo/make.sh [FOLDER]    (eosfm-edge with PyTorch on the PATH); a minute or two
set -eu

out=${1:-build/demo}
here=$(dirname "$0")

eosfm-edge import \
    "$out/six-50/specialists/landuse_s2.safetensors" \
    "$out/six-50/specialists/eurosat_rgb.safetensors" \
    -o "$out/coast" --bands S2L1C --scale 0.0001 --nodata 0 --nodata B10=none --overwrite
eosfm-edge calibrate "$out/coast" --data "$out/scene" -o "$out/coast-int8" --overwrite
eosfm-edge export "$out/coast" --target cpu --precision int8 --calibration "$out/coast-int8" --tile 128 \
    --data "$out/scene" -o "$here/coast.eosfm" --overwrite
