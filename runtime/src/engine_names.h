// Lists of engines' names, as callers give them: with spaces between.
#ifndef EOSFM_ENGINE_NAMES_H
#define EOSFM_ENGINE_NAMES_H

namespace eosfm {

constexpr char kNative[] = "native";
constexpr int kMostEngineName = 64;  // characters, the terminating zero among them

// Copies the first name of a list and returns the list behind it; null when there is no name, or a bad one.
const char* take_name(const char* names, char (&name)[kMostEngineName]);

// Returns whether a text is one or more names with spaces between them.
bool are_engine_names(const char* names);

// Returns whether a list, which is checked, has a name.
bool names_engine(const char* names, const char* name);

// Returns whether a host's engine can have a name.
bool is_host_engine_name(const char* name);

}  // namespace eosfm

#endif
