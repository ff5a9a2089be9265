// From an image file's bytes to its pixels as they are stored.
#pragma once

#include "image.h"

// Decode in 1 to 4 channels of 8 bits, turned upright. Throws BadImage where the file is no image of
// the formats that this program reads, is damaged, is cut short or costs too much.
Image decode(Bytes file);
