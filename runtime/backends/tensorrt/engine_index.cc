#include "engine_index.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace eosfm {
namespace {

using nlohmann::json;

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string sha256(const void* data, size_t size) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (EVP_Digest(data, size, digest, &length, EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("SHA-256 cannot be computed");
  }
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", digest[i]);
    text += two;
  }
  return text;
}

// Returns why an engine is not for this device; "" if it is. Only the first three numbers of a version count.
std::string misfit(const json& key, const std::string& graph_sha256, const Device& device) {
  if (key.at("graph_sha256") != graph_sha256) return "was built from another graph of that name";
  const std::string version = key.at("version");
  int numbers[3] = {0, 0, 0};
  std::sscanf(version.c_str(), "%d.%d.%d", &numbers[0], &numbers[1], &numbers[2]);
  if (key.at("library") != "tensorrt" || !std::equal(numbers, numbers + 3, device.version)) {
    return "was built by " + key.at("library").get<std::string>() + " " + version;
  }
  const std::vector<std::string> capabilities = key.at("compute_capabilities");
  if (std::count(capabilities.begin(), capabilities.end(), device.compute_capability) == 0) {
    return "was built for another GPU";
  }
  return "";
}

std::vector<char> find(const std::string& bundle, const json& index, const eosfm_file& graph,
                       const Device& device) {
  if (index.at("format") != "eosfm-engines" || index.at("schema_version") != 1) {
    throw std::runtime_error("it is not version 1 of eosfm-engines");
  }
  const std::string graph_sha256 = sha256(graph.data, graph.size);
  std::string misfits;
  for (const json& entry : index.at("engines")) {
    if (entry.at("graph") != graph.path) continue;
    const std::string file = entry.at("file");
    const std::string why = misfit(entry.at("key"), graph_sha256, device);
    if (!why.empty()) {
      misfits += "; " + file + " " + why;
      continue;
    }
    if (file.rfind("engines/", 0) != 0 || file.find("..") != std::string::npos) {
      throw std::runtime_error("it names a file outside the bundle's engines: " + file);
    }
    std::vector<char> engine = read_file(bundle + "/" + file);
    if (entry.at("size") != engine.size() || entry.at("sha256") != sha256(engine.data(), engine.size())) {
      throw std::runtime_error(file + " is not what was built: build it again with eosfm-edge build");
    }
    return engine;
  }
  char version[64];
  std::snprintf(version, sizeof version, "%d.%d.%d", device.version[0], device.version[1], device.version[2]);
  throw std::runtime_error("there is no engine of " + std::string(graph.path) + " by TensorRT " + version +
                           " for SM " + device.compute_capability + ": build it here with eosfm-edge build" +
                           misfits);
}

}  // namespace

std::vector<char> read_engine(const std::string& bundle, const eosfm_file& graph, const Device& device) {
  const std::string path = bundle + "/engines/engines.json";
  const std::vector<char> text = read_file(path);
  try {
    return find(bundle, json::parse(text.begin(), text.end()), graph, device);
  } catch (const json::exception& error) {
    throw std::runtime_error(path + " is damaged: " + error.what());
  }
}

}  // namespace eosfm
