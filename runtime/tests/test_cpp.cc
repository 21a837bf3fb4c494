// The C++ header: handles move and close, failures come with their sentence, empty handles are refused.
#include <eosfm.hpp>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <type_traits>

#include "bundle.h"
#include "check.h"

static_assert(!std::is_copy_constructible_v<eosfm::Model> &&
              std::is_nothrow_move_constructible_v<eosfm::Model>);
static_assert(!std::is_copy_constructible_v<eosfm::Context> &&
              std::is_nothrow_move_assignable_v<eosfm::Context>);
static_assert(!std::is_copy_constructible_v<eosfm::Stream> &&
              std::is_nothrow_move_constructible_v<eosfm::Stream>);

namespace {

void failures_come_with_their_sentence(const char* bundle) {
  const auto none = eosfm::Model::open("/nowhere/x.eosfm");
  CHECK(none.code() == EOSFM_NOT_FOUND && std::strstr(none.sentence(), "/nowhere/x.eosfm") != nullptr);
  CHECK(none->get() == nullptr);
  char own[64] = "";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = own;
  options.error_size = sizeof own;
  CHECK(!eosfm::Model::open("/nowhere", options).ok() && std::strlen(own) > 0);
  CHECK(none.error_code() == ENOENT && none.status().error_code() == ENOENT);

  const auto model = eosfm::Model::open(bundle);
  CHECK(model.ok() && std::strcmp(model.sentence(), "") == 0);
  const auto band = model->describe_band(-1);
  CHECK(band.code() == EOSFM_BAD_ARGUMENT && std::strstr(band.sentence(), "no band") != nullptr);
  eosfm_context_options wrong = EOSFM_CONTEXT_OPTIONS_INIT;
  wrong.width = 33;
  const auto context = model->create_context(wrong);
  CHECK(context.code() == EOSFM_BAD_ARGUMENT && std::strstr(context.sentence(), "33") != nullptr);
  CHECK(!model->requirements(wrong).ok());
}

void empty_handles_are_refused() {
  const eosfm::Model model;
  CHECK(model.describe().code() == EOSFM_BAD_ARGUMENT && std::strlen(model.describe().sentence()) > 0);
  CHECK(model.create_context().code() == EOSFM_BAD_ARGUMENT);
  eosfm::Context context;
  CHECK(context.verify().code() == EOSFM_BAD_ARGUMENT);
  CHECK(context.create_stream(EOSFM_STREAM_OPTIONS_INIT).code() == EOSFM_BAD_ARGUMENT);
  context.cancel();
  eosfm::Stream stream;
  CHECK(stream.push_rows(0, nullptr, 1, 1).code() == EOSFM_BAD_ARGUMENT);
  eosfm::Patch patch;
  CHECK(stream.pull_patch(patch).code() == EOSFM_BAD_ARGUMENT);
  CHECK(model.open_head("landuse").code() == EOSFM_BAD_ARGUMENT);
  const eosfm::Head head;
  CHECK(head.describe().code() == EOSFM_BAD_ARGUMENT && head.describe_class(0).code() == EOSFM_BAD_ARGUMENT);
  const eosfm_level levels[EOSFM_LEVELS] = {};
  CHECK(head.apply(levels, 32, 32, EOSFM_MAP_INIT).code() == EOSFM_BAD_ARGUMENT);
}

void handles_move_and_results_are_the_c_functions_ones(const char* bundle) {
  const BundleFiles files(bundle);
  const std::vector<eosfm_file> views = files.views();
  auto opened = eosfm::Model::open_memory(views.data(), views.size());
  CHECK(opened.ok());
  eosfm::Model model = std::move(*opened);
  CHECK(opened->get() == nullptr && model.get() != nullptr);
  const auto info = model.describe();
  CHECK(info.ok() && info->specialists > 0 && model.describe_band(0).ok() &&
        model.describe_specialist(0).ok());
  CHECK(model.requirements().ok() && model.requirements()->context_bytes > 0);
  auto created = model.create_context();
  CHECK(created.ok());
  eosfm::Context context = std::move(*created);
  model = eosfm::Model();  // the context keeps it
  CHECK(std::strcmp(context.backend(), "native") == 0);
  const auto worst = context.verify();
  CHECK(worst.ok() && (*worst)[0] >= 0.0 && (*worst)[0] < 0.05);
  const auto allowed = context.tolerance();
  CHECK(allowed.ok());
  for (int level = 0; level < EOSFM_LEVELS; ++level) CHECK((*worst)[level] <= (*allowed)[level]);
  const std::vector<uint8_t> none(static_cast<size_t>(info->specialists), 0);
  CHECK(context.set_active(none.data(), none.size()).code() == EOSFM_BAD_ARGUMENT);
  CHECK(context.set_grn(EOSFM_GRN_SCENE).code() == EOSFM_BAD_ARGUMENT);

  const TestImage image(info->bands, info->tile, info->tile);
  TestLevels first(*info, info->tile, info->tile);
  TestLevels second(*info, info->tile, info->tile);
  const eosfm_image view = image.view();
  CHECK(context.run(view, first.levels).ok());
  CHECK(eosfm_context_run(context.get(), &view, second.levels, nullptr) == EOSFM_OK && first == second);

  const eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
  const std::vector<eosfm_stream_band> bands(static_cast<size_t>(info->bands), band);
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  options.width = info->tile;
  options.bands = bands.data();
  options.band_count = bands.size();
  CHECK(context.stream_bytes(options).ok() && *context.stream_bytes(options) > 0);
  auto stream = context.create_stream(options);
  CHECK(stream.ok());
  eosfm::Patch patch;
  const eosfm::Status again = stream->pull_patch(patch);
  CHECK(again.code() == EOSFM_AGAIN && std::strcmp(again.sentence(), "more rows are needed") == 0);
  for (int b = 0; b < info->bands; ++b) {
    const auto taken = stream->push_rows(b, image.bands[static_cast<size_t>(b)].data, info->tile, info->tile);
    CHECK(taken.ok() && *taken == info->tile);
  }
  CHECK(stream->end().ok());
  CHECK(stream->pull_patch(patch).ok() && patch->tiles == 1);
  CHECK(patch.level(3).data != nullptr && patch.level(3).data[0] == second.at(3, 0, 0, 0));
  CHECK(stream->pull_patch(patch).code() == EOSFM_END);
  CHECK(stream->reset().ok() && stream->pull_patch(patch).code() == EOSFM_AGAIN);

  const auto most = context.tolerance();
  CHECK(most.ok() && (*most)[0] >= (*worst)[0]);
  CHECK(context.measure().ok() && context.measure_specialist(0).ok());
  CHECK(context.measure_specialist(-1).code() == EOSFM_BAD_ARGUMENT);
  context.cancel();
  CHECK(context.run(view, first.levels).code() == EOSFM_CANCELLED);
  context.resume();
  CHECK(context.run(view, first.levels).ok());
}

// A stream's map of a scene of one tile is what the head gives for the image.
void heads_answer_for_images_and_streams(const char* bundle) {
  auto model = eosfm::Model::open(bundle);
  CHECK(model.ok());
  const auto missing = model->open_head("roads");
  CHECK(missing.code() == EOSFM_NOT_FOUND && std::strstr(missing.sentence(), "heads/roads.gguf") != nullptr);
  auto head = model->open_head("landuse");
  CHECK(head.ok());
  const auto about = head->describe();
  CHECK(about.ok() && std::strcmp(about->name, "landuse") == 0 && about->task == EOSFM_CLASSES);
  CHECK(head->describe_class(0).ok() && head->describe_class(0)->code == 10);
  CHECK(head->describe_class(about->outputs).code() == EOSFM_BAD_ARGUMENT);

  const auto info = model->describe();
  auto context = model->create_context();
  CHECK(context.ok());
  const TestImage image(info->bands, info->tile, info->tile);
  TestLevels levels(*info, info->tile, info->tile);
  CHECK(context->run(image.view(), levels.levels).ok());
  const int side = info->tile >> (2 + about->level);
  const size_t cells = static_cast<size_t>(side) * side;
  std::vector<float> outputs(cells * about->outputs);
  std::vector<uint8_t> classes(cells);
  eosfm_map map = EOSFM_MAP_INIT;
  map.outputs = outputs.data();
  map.channel_stride = static_cast<ptrdiff_t>(cells);
  map.row_stride = side;
  map.classes = classes.data();
  map.class_stride = side;
  CHECK(head->apply(levels.levels, info->tile, info->tile, map).ok());
  map.row_stride = side - 1;
  const eosfm::Status narrow = head->apply(levels.levels, info->tile, info->tile, map);
  CHECK(narrow.code() == EOSFM_BAD_ARGUMENT && std::strstr(narrow.sentence(), "strides") != nullptr);

  const eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
  const std::vector<eosfm_stream_band> bands(static_cast<size_t>(info->bands), band);
  eosfm_stream_head wanted = EOSFM_STREAM_HEAD_INIT;
  wanted.head = head->get();
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  options.width = info->tile;
  options.bands = bands.data();
  options.band_count = bands.size();
  options.heads = &wanted;
  options.head_count = 1;
  for (int32_t& level : options.levels) level = 0;
  auto stream = context->create_stream(options);
  CHECK(stream.ok());
  *head = eosfm::Head();  // the stream keeps it
  for (int b = 0; b < info->bands; ++b) {
    const auto taken = stream->push_rows(b, image.bands[static_cast<size_t>(b)].data, info->tile, info->tile);
    CHECK(taken.ok());
  }
  CHECK(stream->end().ok());
  eosfm::Patch patch;
  CHECK(stream->pull_patch(patch).ok());
  const eosfm_patch_map& part = patch.map(0);
  CHECK(patch.level(0).data == nullptr && part.width == side && part.height == side);
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      CHECK(part.classes[y * part.class_stride + x] == classes[static_cast<size_t>(y * side + x)]);
      CHECK(part.outputs[y * part.row_stride + x] == outputs[static_cast<size_t>(y * side + x)]);
    }
  }
}

void versions_and_engines_are_the_library_s() {
  CHECK(std::strcmp(eosfm::library_version(), eosfm_library_get_version()) == 0);
  CHECK(eosfm::library_version_number() == EOSFM_VERSION_NUMBER);
  std::set<std::string> names;
  int count = 0;
  for (;; ++count) {
    const auto engine = eosfm::describe_engine(count);
    if (engine.code() == EOSFM_END) break;
    CHECK(engine.ok());
    if (!engine.ok()) break;
    names.insert(engine->name);
    CHECK((engine->isa != nullptr) == (count == 0));
    CHECK(engine->availability.ok() == (std::strlen(engine->availability.sentence()) == 0));
  }
  CHECK(names.count("native") == 1 && names.size() == static_cast<size_t>(count) && count == 7);
  CHECK(eosfm::describe_engine(-1).code() == EOSFM_BAD_ARGUMENT);
}

void memory_may_be_the_host_s(const char* bundle) {
  struct Count {
    long live = 0;
    long calls = 0;
  } count;
  eosfm_allocator allocator = EOSFM_ALLOCATOR_INIT;
  allocator.allocate = [](void* user, size_t size, size_t alignment) {
    ++static_cast<Count*>(user)->live;
    ++static_cast<Count*>(user)->calls;
    return std::aligned_alloc(alignment, size);
  };
  allocator.release = [](void* user, void* memory, size_t) {
    --static_cast<Count*>(user)->live;
    std::free(memory);
  };
  allocator.user = &count;
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.allocator = &allocator;
  {
    auto model = eosfm::Model::open(bundle, options);
    CHECK(model.ok() && model->create_context().ok());
  }
  CHECK(count.calls > 10 && count.live == 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  failures_come_with_their_sentence(argv[1]);
  empty_handles_are_refused();
  handles_move_and_results_are_the_c_functions_ones(argv[1]);
  heads_answer_for_images_and_streams(argv[1]);
  versions_and_engines_are_the_library_s();
  memory_may_be_the_host_s(argv[1]);
  return report();
}
