#include "engine.h"

// Virtual functions without a body refer to this. Nothing calls it. It is weak, so that in a C++ program the one of
// the C++ library is linked.
// NOLINTNEXTLINE(bugprone-reserved-identifier)
extern "C" __attribute__((weak, visibility("hidden"))) void __cxa_pure_virtual() { __builtin_trap(); }
