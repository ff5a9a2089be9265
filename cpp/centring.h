// What is drawn, brought to its size and place: handler/classifier/image/centring.py in C++, to the same pixels.
#pragma once

#include "image.h"

// Return a grey image in width and height, the longer side of what is drawn `ink` pixels long.
Image centred(const Image& image, int width, int height, int ink);
