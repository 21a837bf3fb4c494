// The ladder: of several backends, the first that works here.
#ifndef EOSFM_LADDER_H
#define EOSFM_LADDER_H

#include "context.h"

namespace eosfm {

constexpr char kNative[] = "native";

// Whether a text is names of backends with spaces between them.
bool are_backends(const char* names);
bool names_backend(const char* names, const char* backend);
bool names_others(const char* names);  // than native
// Whether a host's engine can be called so.
bool is_engine_name(const char* name);

// Says what the engine of the backend that needs most would allocate. One that cannot be had needs nothing.
eosfm_backend_memory most_memory(const eosfm_model& model, const Settings& settings);

// Creates a context on the first of the settings' backends that works here, or on their engine if they name
// none. The log gets the reasons of those before it; `error` has the last one's when none does.
eosfm_status create_first(eosfm_model* model, const Settings& settings, eosfm_context** result,
                          ErrorText& error);

}  // namespace eosfm

#endif
