// Pillow's Image.resize, to the last grey level.
#pragma once

#include "picture.h"

enum class Filter { box, bilinear };

Picture resize(const Picture& picture, int width, int height, Filter filter);
