// The ladder: of several engines, the first that works here.
#ifndef EOSFM_LADDER_H
#define EOSFM_LADDER_H

#include "context.h"

namespace eosfm {

// Finds the needs of a context, each as large as the neediest of the listed engines has it.
eosfm_status measure_most(const eosfm_model& model, const Settings& settings, eosfm_requirements* most,
                          ErrorText& error);

// Creates a context on the first engine of the settings' list that works here, or on the host's if there is no list.
// The log gets the reasons of those before it; `error` has the last one's when none does.
eosfm_status create_first(eosfm_model* model, const Settings& settings, eosfm_context** result,
                          ErrorText& error);

}  // namespace eosfm

#endif
