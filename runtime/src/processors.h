// How many processors this process may keep busy.
#ifndef EOSFM_PROCESSORS_H
#define EOSFM_PROCESSORS_H

namespace eosfm {

// Those that it may run on, or what the control groups grant, rounded up, if that is less: 64 threads that
// share 2 processors take turns in being stopped. From 1 to `most`.
int processors(int most);

}  // namespace eosfm

#endif
