// The engines by name: lists those that are known, finds those that are here, measures their needs, and makes them.
#ifndef EOSFM_ENGINES_H
#define EOSFM_ENGINES_H

#include "engine.h"

namespace eosfm {

// Returns the name of the known engine `index`, from 0; null behind the last.
const char* known_engine(int index);

// Checks that the library of a known engine is here, and finds the native one's instruction set; null for others.
eosfm_status find_engine(const char* name, const char** isa, ErrorText& error);

// Makes the engine that the state's settings have under a name; null: the host's. It takes nothing for images yet.
eosfm_status make_engine(const char* name, RunState& state, Engine** result, ErrorText& error);

// Fills in what such an engine needs, without making it. What its context takes beside it is left out, and so are
// the bundle's files. A backend that cannot be loaded needs nothing of a GPU.
eosfm_status measure_engine(const char* name, const eosfm_model& model, const Settings& settings,
                            eosfm_requirements* needs, ErrorText& error);

}  // namespace eosfm

#endif
