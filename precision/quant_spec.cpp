#include "precision/quant_spec.h"

namespace qstep::precision {}
