/* Whether a scene's values can be what they are read as. */
#ifndef VALUES_H
#define VALUES_H

#include "scene.h"

/* Looks at pixels from all over a scene, by its overviews if it has some, and refuses values that cannot be
 * what the bundle takes them for: another unit, an offset that was or was not subtracted, a nodata value that
 * nobody stated. The criteria are those of `eosfm-edge run` (docs/values.md), but for ensembles that
 * standardise: a bundle's files do not say by what.
 *
 * Returns 0; or -1 with what was found, what was expected and what fixes it on the standard error. */
int require_plausible(const Scene *scene, eosfm_model *model, const char *input);

#endif
