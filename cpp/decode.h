// From an image file's bytes to its pixels as they are stored.
#pragma once

#include "image.h"

// Decode to 1 to 4 channels of 8 bits, turned upright. Throws BadImage if the file is not in a format that
// this program reads, is damaged or truncated, or exceeds the limits.
Image decode(Bytes file);
