// Pillow's Image.resize, to the last grey level, and its Image.crop within the picture.
#pragma once

#include "picture.h"

enum class Filter { box, bilinear };

Picture resize(const Picture& picture, int width, int height, Filter filter);

Picture cropped(const Picture& picture, int left, int top, int width, int height);
