#include "io/mmap.h"

namespace edgequant {}
