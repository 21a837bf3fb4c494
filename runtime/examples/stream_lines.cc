// Streams 16-bit lines of pixels, band by band, from standard input, by the C++ header:
// stream_lines NAME.eosfm WIDTH < scene.bil
#include <eosfm.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

int fail(const char* sentence) {
  std::fprintf(stderr, "stream_lines: %s\n", sentence);
  return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return fail("usage: stream_lines NAME.eosfm WIDTH");
  const auto model = eosfm::Model::open(argv[1]);
  if (!model.ok()) return fail(model.sentence());
  const auto info = model->describe();
  if (!info.ok()) return fail(info.sentence());
  auto context = model->create_context();
  if (!context.ok()) return fail(context.sentence());

  const int width = std::atoi(argv[2]);
  eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
  band.dtype = EOSFM_U16;
  const std::vector<eosfm_stream_band> bands(static_cast<std::size_t>(info->bands), band);
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  options.width = width;
  options.bands = bands.data();
  options.band_count = bands.size();
  auto stream = context->create_stream(options);
  if (!stream.ok()) return fail(stream.sentence());

  std::vector<std::uint16_t> line(static_cast<std::size_t>(width));
  eosfm::Patch patch;
  bool more = true;
  for (;;) {
    const eosfm::Status status = stream->pull_patch(patch);
    if (status.code() == EOSFM_END) break;
    if (status.ok()) {
      const eosfm_patch_level& level = patch.level(3);
      std::printf("level 4: %d x %d cells at row %lld, column %d; the first is %g\n", level.height,
                  level.width, static_cast<long long>(level.row), level.column,
                  static_cast<double>(level.data[0]));
      continue;
    }
    if (status.code() != EOSFM_AGAIN) return fail(status.sentence());
    for (std::int32_t b = 0; more && b < info->bands; ++b) {
      more = std::fread(line.data(), sizeof line[0], line.size(), stdin) == line.size();
      if (!more) break;
      const auto taken = stream->push_rows(b, line.data(), 1, width);
      if (!taken.ok()) return fail(taken.sentence());
    }
    if (more) continue;
    const eosfm::Status ended = stream->end();
    if (!ended.ok()) return fail(ended.sentence());
  }
  std::printf("%lld tiles, of which %lld skipped\n", static_cast<long long>(patch->tiles),
              static_cast<long long>(patch->tiles_skipped));
  return EXIT_SUCCESS;
}
