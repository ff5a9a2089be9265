// What is drawn, brought to its size and place: handler/classifier/image/centring.py in C++, to the same pixels.
#pragma once

#include "picture.h"

// Return a grey picture in width and height, the longer side of what is drawn `ink` pixels long.
Picture centred(const Picture& picture, int width, int height, int ink);
