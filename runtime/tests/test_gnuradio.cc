// Scenes that follow each other in one flowgraph: test_gnuradio NAME.eosfm WIDTH BANDS
#include <gnuradio/blocks/vector_sink.h>
#include <gnuradio/blocks/vector_source.h>
#include <gnuradio/top_block.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "../examples/gnuradio/line_features.h"
#include "check.h"

namespace {

struct Rows {
  std::vector<float> values;
  std::vector<gr::tag_t> tags;
};

// Runs lines through the block; `ends` are those that end a scene.
Rows rows_of(const char* bundle, int width, int bands, const std::vector<int16_t>& lines,
             const std::vector<uint64_t>& ends) {
  std::vector<gr::tag_t> tags(ends.size());
  for (size_t i = 0; i < ends.size(); ++i) {
    tags[i].offset = ends[i];
    tags[i].key = pmt::mp("scene_end");
    tags[i].value = pmt::PMT_T;
  }
  const auto features = line_features::make(bundle, width, {3});
  const auto source =
      gr::blocks::vector_source_s::make(lines, false, static_cast<unsigned>(width * bands), tags);
  const auto sink =
      gr::blocks::vector_sink_f::make(static_cast<unsigned>(features->row_bytes(0) / sizeof(float)));
  const auto graph = gr::make_top_block("test");
  graph->connect(source, 0, features, 0);
  graph->connect(features, 0, sink, 0);
  graph->run();
  CHECK(features->error().empty());
  return {sink->data(), sink->tags()};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int width = std::atoi(argv[2]);
  const int bands = std::atoi(argv[3]);
  const size_t line = static_cast<size_t>(width) * bands;
  std::vector<int16_t> all(130 * line);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int16_t>(i * i % 199);
  const auto between = [&](size_t from, size_t to) {
    return std::vector<int16_t>(all.begin() + from * line, all.begin() + to * line);
  };

  const Rows first = rows_of(argv[1], width, bands, between(0, 90), {});
  const Rows second = rows_of(argv[1], width, bands, between(90, 130), {});
  CHECK(!first.values.empty() && !second.values.empty());
  std::vector<float> expected = first.values;
  expected.insert(expected.end(), second.values.begin(), second.values.end());

  // The second ends with a tag, too, or with the lines.
  for (const std::vector<uint64_t>& ends : {std::vector<uint64_t>{89}, {89, 129}}) {
    const Rows both = rows_of(argv[1], width, bands, all, ends);
    CHECK(both.values == expected);
    CHECK(both.tags.size() == 2);
    for (size_t i = 0; i < both.tags.size(); ++i) {
      CHECK(pmt::symbol_to_string(both.tags[i].key) == "scene");
      CHECK(pmt::to_uint64(both.tags[i].value) == i);
    }
    const size_t row = first.values.size() / ((90 + 15) / 16);
    CHECK(both.tags.size() == 2 && both.tags[1].offset * row == first.values.size());
  }
  return report();
}
