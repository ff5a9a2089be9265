// torch's own antialiased resize (_upsample_bilinear2d_aa) rounds its weights to 16 bits on uint8 and is
// one grey level off Pillow's here and there; this is Pillow's arithmetic, from its Resample.c.
#include "resample.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr int PRECISION_BITS = 32 - 8 - 2;  // 8 bits a pixel, 2 for the sum's sign and overflow

// The input pixels that make up one output pixel, and their weights in fixed point.
struct Span {
    int first;
    std::vector<int> weights;
};

double weight(Filter filter, double distance) {
    if (filter == Filter::box) return distance > -0.5 && distance <= 0.5 ? 1.0 : 0.0;
    return std::max(0.0, 1.0 - std::abs(distance));
}

Span span_of(int output, double scale, int inputs, Filter filter) {
    const double stretch = std::max(scale, 1.0);  // antialiasing: each pixel of a smaller image covers more pixels
    const double support = (filter == Filter::box ? 0.5 : 1.0) * stretch;
    const double center = (output + 0.5) * scale;
    const int first = std::max(0, int(center - support + 0.5));
    const int last = std::min(inputs, int(center + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int i = first; i < last; ++i) {
        weights.push_back(weight(filter, (i - center + 0.5) * (1.0 / stretch)));
        sum += weights.back();
    }
    Span span{first, {}};
    for (double one : weights)
        span.weights.push_back(int(0.5 + (sum != 0 ? one / sum : one) * (1 << PRECISION_BITS)));
    return span;
}

std::vector<Span> spans_of(int outputs, int inputs, Filter filter) {
    std::vector<Span> spans;
    for (int output = 0; output < outputs; ++output)
        spans.push_back(span_of(output, double(inputs) / outputs, inputs, filter));
    return spans;
}

constexpr int HALF = 1 << (PRECISION_BITS - 1);

std::uint8_t rounded(int sum) { return std::uint8_t(std::clamp(sum >> PRECISION_BITS, 0, 255)); }

Image across(const Image& in, int width, Filter filter) {
    if (width == in.width) return in;
    Image out(in.height, width, in.channels);
    const auto spans = spans_of(width, in.width, filter);
    for (int y = 0; y < out.height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < in.channels; ++c) {
                int sum = HALF;
                const auto* pixel = in.at(y, spans[x].first) + c;
                for (int weight : spans[x].weights) {
                    sum += *pixel * weight;
                    pixel += in.channels;
                }
                out.at(y, x)[c] = rounded(sum);
            }
    return out;
}

Image down(const Image& in, int height, Filter filter) {
    if (height == in.height) return in;
    Image out(height, in.width, in.channels);
    const auto spans = spans_of(height, in.height, filter);
    const std::size_t row = std::size_t(in.width) * in.channels;
    for (int y = 0; y < height; ++y) {
        std::vector<int> sums(row, HALF);
        const auto* pixels = in.at(spans[y].first, 0);
        for (int weight : spans[y].weights) {  // row by row, as the image lies in memory
            for (std::size_t i = 0; i < row; ++i) sums[i] += pixels[i] * weight;
            pixels += row;
        }
        std::transform(sums.begin(), sums.end(), out.at(y, 0), rounded);
    }
    return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Filter filter) {
    // Each pass rounds to 8 bits, so their order is part of the result. Since Pillow 13 an image that
    // loses much more height than width is resized vertically first; measured, and checked by a test.
    const int lost_height = image.height - height, lost_width = image.width - width;
    if (lost_height > 0 && lost_height > 2 * lost_width)
        return across(down(image, height, filter), width, filter);
    return down(across(image, width, filter), height, filter);
}

Image reduced(const Image& image, int factor) {
    if (factor == 1) return image;
    Image small((image.height + factor - 1) / factor, (image.width + factor - 1) / factor, image.channels);
    for (int y = 0; y < small.height; ++y)
        for (int x = 0; x < small.width; ++x) {
            const int bottom = std::min((y + 1) * factor, image.height), right = std::min((x + 1) * factor, image.width);
            const std::uint32_t count = std::uint32_t(bottom - y * factor) * std::uint32_t(right - x * factor);
            // Pillow divides by a multiplication, whose factor it works out in float32.
            const auto inverse = std::uint32_t(4294967296.0F / float(count * 256U));
            for (int c = 0; c < image.channels; ++c) {
                std::uint32_t sum = count / 2;
                for (int row = y * factor; row < bottom; ++row)
                    for (int column = x * factor; column < right; ++column) sum += image.at(row, column)[c];
                small.at(y, x)[c] = std::uint8_t((sum * inverse) >> 24);
            }
        }
    return small;
}

Image cropped(const Image& image, int left, int top, int width, int height) {
    Image cut(height, width, image.channels);
    for (int y = 0; y < height; ++y)
        std::copy_n(image.at(top + y, left), std::size_t(width) * image.channels, cut.at(y, 0));
    return cut;
}
