// From a picture file's bytes to its pixels as they are stored.
#pragma once

#include "picture.h"

// Decode in 1 to 4 channels of 8 bits, turned upright. Throws BadPicture where the file is no picture of
// the formats that this program reads, is damaged, is cut short or costs too much.
Picture decode(Bytes file);
