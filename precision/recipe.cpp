#include "precision/recipe.h"

namespace qstep::precision {}
