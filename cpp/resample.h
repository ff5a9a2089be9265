// Pillow's Image.resize and Image.reduce, exact to the grey level, and its Image.crop within the image.
#pragma once

#include "image.h"

enum class Filter { box, bilinear };

Image resize(const Image& image, int width, int height, Filter filter);

// The means of squares of `factor` pixels a side; those at the right and the bottom may be cut off.
Image reduced(const Image& image, int factor);

Image cropped(const Image& image, int left, int top, int width, int height);
