// Finds how many processors this process may keep busy.
#ifndef EOSFM_PROCESSORS_H
#define EOSFM_PROCESSORS_H

namespace eosfm {

// Returns the processors that it may run on, or fewer if its control groups grant less, rounded up: of 64 threads that
// share 2 processors, most would wait. From 1 to `most`.
int processors(int most);

}  // namespace eosfm

#endif
