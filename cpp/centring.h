// Scale and centre a drawing: handler/classifier/image/centring.py in C++, with the same pixels.
#pragma once

#include "image.h"

// Return a grey image of width x height, with the longer side of its drawing `ink` pixels long.
Image centred(const Image& image, int width, int height, int ink);
