#include "engine.h"

// The compiler refers to this where a class has functions without a body. It is never called. Weak, so that a host's
// C++ library has its own.
extern "C" __attribute__((weak, visibility("hidden"))) void __cxa_pure_virtual() { __builtin_trap(); }
