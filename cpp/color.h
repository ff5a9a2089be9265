// An image's colours as a person sees them.
#pragma once

#include "image.h"

// Return it opaque, in 1 channel of grey or 3 of RGB.
Image in_channels(const Image& image, int channels);
