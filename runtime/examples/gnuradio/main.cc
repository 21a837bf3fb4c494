// A flowgraph: line_features NAME.eosfm WIDTH LEVEL < lines > rows
//
// Lines come from the standard input and rows go to the standard output, as line_features.h says.
#include <gnuradio/blocks/file_descriptor_sink.h>
#include <gnuradio/blocks/file_descriptor_source.h>
#include <gnuradio/top_block.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <iostream>

#include "line_features.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: line_features NAME.eosfm WIDTH LEVEL < lines > rows\n";
    return EXIT_FAILURE;
  }
  try {
    const auto features = line_features::make(argv[1], std::atoi(argv[2]), {std::atoi(argv[3])});
    const auto graph = gr::make_top_block("line_features");
    graph->connect(gr::blocks::file_descriptor_source::make(features->line_bytes(), STDIN_FILENO), 0,
                   features, 0);
    graph->connect(features, 0, gr::blocks::file_descriptor_sink::make(features->row_bytes(0), STDOUT_FILENO),
                   0);
    graph->run();
    return features->error().empty() ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception& error) {
    std::cerr << "line_features: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
