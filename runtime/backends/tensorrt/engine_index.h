// The list of engines that `eosfm-edge build` left in a bundle: export/bundle.md has its format.
#ifndef EOSFM_TENSORRT_ENGINE_INDEX_H
#define EOSFM_TENSORRT_ENGINE_INDEX_H

#include <string>
#include <vector>

#include "../backend.h"

namespace eosfm {

// The device and version that an engine must have been built for.
struct Device {
  int version[3];  // of TensorRT
  std::string compute_capability;  // "8.7"
};

// Returns the bytes of a graph's engine whose whole key and digest match, since TensorRT does not check them. If there
// is none, throws std::runtime_error that lists the engines there are.
std::vector<char> read_engine(const std::string& bundle, const eosfm_file& graph, const Device& device);

}  // namespace eosfm

#endif
