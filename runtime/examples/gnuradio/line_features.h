// A GNU Radio block: image lines in, rows of features out.
#ifndef LINE_FEATURES_H
#define LINE_FEATURES_H

#include <eosfm.h>
#include <gnuradio/block.h>

#include <memory>
#include <string>
#include <vector>

// Streams a scene through a bundle, whose lines come as a receiver or a recorder has them.
//
// Input: one line an item, of 16-bit unsigned stored values [bands][width]. The scene ends with the line
// that has a tag "scene_end", after which the next begins, or else with the last line.
//
// Outputs, one for each wanted level: one row of cells an item, floats [channels][cells], NaN where there
// is no data. The first row of each scene has a tag "scene" with its number, from 0.
class line_features : public gr::block {
 public:
  using sptr = std::shared_ptr<line_features>;

  // `levels` are numbers from 1 to 4. Throws std::runtime_error with libeosfm's sentence if the bundle
  // cannot be used.
  static sptr make(const std::string& bundle, int width, const std::vector<int>& levels);

  // Bytes of an item.
  size_t line_bytes() const;
  size_t row_bytes(size_t output) const;
  // The sentence of what ended the flowgraph early; "" if nothing did.
  const std::string& error() const { return error_; }

  void forecast(int noutput_items, gr_vector_int& required) override;
  int general_work(int noutput_items, gr_vector_int& ninput_items, gr_vector_const_void_star& input_items,
                   gr_vector_void_star& output_items) override;

 private:
  // Rows of a level that tiles complete together, and how many of them have gone out.
  struct Rows {
    int level;
    size_t channels;
    size_t cells;
    std::vector<float> values;  // [rows][channels][cells]
    size_t ready = 0;
    size_t sent = 0;
  };

  struct Closer {
    void operator()(eosfm_model* model) const { eosfm_model_close(model); }
    void operator()(eosfm_context* context) const { eosfm_context_destroy(context); }
    void operator()(eosfm_stream* stream) const { eosfm_stream_destroy(stream); }
  };
  using Model = std::unique_ptr<eosfm_model, Closer>;

  line_features(Model model, const eosfm_model_info& info, int width, const std::vector<int>& levels);
  static Model open(const std::string& bundle, eosfm_model_info* info);

  void begin();
  bool send(int noutput_items, gr_vector_void_star& output_items);
  void collect(const eosfm_patch& patch);
  void push(const char* lines, int count);
  bool input_is_all(int count) const;
  int fail();

  Model model_;
  std::unique_ptr<eosfm_context, Closer> context_;
  std::unique_ptr<eosfm_stream, Closer> stream_;  // goes before its context
  size_t bands_;
  size_t width_;
  std::vector<Rows> rows_;
  uint64_t scene_ = 0;
  bool wants_lines_ = false;
  bool ended_ = false;      // the stream knows
  bool more_scenes_ = false;  // it was a tag that said so
  std::string error_;
};

#endif
