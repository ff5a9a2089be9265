// Scale and centre a drawing: handler/classifier/image/centring.py in C++, with the same pixels.
#pragma once

#include "image.h"

// Return a grey image of width x height with its drawing in the middle, white on black, `ink` pixels long.
Image centred(const Image& image, int width, int height, int ink);
