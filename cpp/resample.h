// Pillow's Image.resize, exact to the grey level, and its Image.crop within the image.
#pragma once

#include "image.h"

enum class Filter { box, bilinear };

Image resize(const Image& image, int width, int height, Filter filter);

Image cropped(const Image& image, int left, int top, int width, int height);
