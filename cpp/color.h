// An image's colours as a person sees them.
#pragma once

#include "image.h"

// Return the image opaque, with 1 channel of grey or 3 of RGB.
Image in_channels(const Image& image, int channels);
