#include "centring.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "resample.h"

namespace {

// The reasons for these are in handler/classifier/image/centring.py.
constexpr int LOOKS = 3, MOST_PIXELS = 448, EDGES = 3;
constexpr double INK = 0.35, VISIBLE = 24, MOST_OF_EDGE = 0.4;
constexpr double SIZE_TOLERANCE = 1.5, PLACE_TOLERANCE = 1.5, SQUEEZE_TOLERANCE = 1.05;

struct Ink {
    int width, height;
    double x, y, paper;
};

struct Window {
    int left, top, width, height;
};

// Which cells of the grid are within the image, and the pixels that they cover; the last are not included.
struct Span {
    int from_cell, to_cell, first, last;
};

int rounded(double number) { return int(std::floor(number + 0.5)); }

// A sheet's grey levels without the gradient of the light, and those of its edge, sorted.
struct Flat {
    std::vector<double> levels, edge;
};

bool on_edge(int y, int x, const Image& seen) {
    return y == 0 || x == 0 || y == seen.height - 1 || x == seen.width - 1;
}

Flat flattened(const Image& seen) {
    double across = 0, down = 0, across_squares = 0, down_squares = 0;  // whole numbers: the order of the sum does not matter
    for (int y = 0; y < seen.height; ++y)
        for (int x = 0; x < seen.width; ++x) {
            if (!on_edge(y, x, seen)) continue;
            const double right = 2 * x + 1 - seen.width, below = 2 * y + 1 - seen.height;
            across += *seen.at(y, x) * right;
            down += *seen.at(y, x) * below;
            across_squares += right * right;
            down_squares += below * below;
        }
    across /= across_squares;
    down /= down_squares;
    Flat flat;
    for (int y = 0; y < seen.height; ++y)
        for (int x = 0; x < seen.width; ++x) {
            const double light = across * (2 * x + 1 - seen.width);
            const double level = *seen.at(y, x) - light;
            flat.levels.push_back(level - down * (2 * y + 1 - seen.height));
            if (on_edge(y, x, seen)) flat.edge.push_back(flat.levels.back());
        }
    std::sort(flat.edge.begin(), flat.edge.end());
    return flat;
}

std::optional<Ink> find(const Image& seen) {
    const Flat flat = flattened(seen);
    const std::size_t middle = flat.edge.size() / 2;
    const double paper = flat.edge[middle];
    double most = 0;
    bool dark = false;  // whether the level farthest from the background is darker
    for (double level : flat.levels)
        if (std::abs(level - paper) > most) {
            most = std::abs(level - paper);
            dark = level < paper;
        }
    if (most < VISIBLE) return std::nullopt;
    int left = seen.width, right = -1, top = seen.height, bottom = -1, on_edges = 0;
    std::int64_t count = 0, across = 0, down = 0;
    for (int y = 0; y < seen.height; ++y)
        for (int x = 0; x < seen.width; ++x) {
            const double level = flat.levels[std::size_t(y) * seen.width + x];
            if (std::abs(level - paper) < INK * most) continue;
            on_edges += (y == 0) + (x == 0) + (y == seen.height - 1) + (x == seen.width - 1);
            left = std::min(left, x), right = std::max(right, x);
            top = std::min(top, y), bottom = std::max(bottom, y);
            ++count, across += x, down += y;
        }
    const int edges = (top == 0) + (left == 0) + (bottom == seen.height - 1) + (right == seen.width - 1);
    if (edges >= EDGES || on_edges > MOST_OF_EDGE * double(flat.edge.size())) return std::nullopt;
    return Ink{right - left + 1, bottom - top + 1, double(across) / double(count) + 0.5,
               double(down) / double(count) + 0.5, flat.edge[dark ? middle + middle / 2 : middle / 2]};
}

bool fits(const Ink& ink, const Window& window, int width, int height, int side) {
    const double squeezed =
        double(std::int64_t(window.width) * height) / double(std::int64_t(window.height) * width);
    return std::abs(std::max(ink.width, ink.height) - side) <= SIZE_TOLERANCE &&
           std::abs(ink.x - width / 2.0) <= PLACE_TOLERANCE && std::abs(ink.y - height / 2.0) <= PLACE_TOLERANCE &&
           std::max(squeezed, 1 / squeezed) <= SQUEEZE_TOLERANCE;
}

// The window that centres the ink and gives it the right size.
Window around(const Ink& ink, const Window& window, int width, int height, int side, const Image& image) {
    const double pixel_width = double(window.width) / width, pixel_height = double(window.height) / height;
    const double scale = std::max(ink.width * pixel_width, ink.height * pixel_height) / side;
    const double x = std::clamp(window.left + ink.x * pixel_width, 0.0, double(image.width));
    const double y = std::clamp(window.top + ink.y * pixel_height, 0.0, double(image.height));
    return {rounded(x - scale * width / 2), rounded(y - scale * height / 2), std::max(rounded(scale * width), 2),
            std::max(rounded(scale * height), 2)};
}

Span within(int start, int length, int limit, int cells) {
    const int first = std::max(start, 0), last = std::min(start + length, limit);
    const int from = std::min(rounded(double(std::int64_t(first - start) * cells) / length), cells - 1);
    const int to = rounded(double(std::int64_t(last - start) * cells) / length);
    return {from, std::max(to, from + 1), first, last};
}

// Resize a part of the image to width x height, and fill what is beyond the edges with background.
Image look(const Image& image, const Window& window, int width, int height, double paper) {
    const Span columns = within(window.left, window.width, image.width, width);
    const Span rows = within(window.top, window.height, image.height, height);
    const Image part = cropped(image, columns.first, rows.first, columns.last - columns.first,
                                 rows.last - rows.first);
    const Image pixels = resize(part, columns.to_cell - columns.from_cell, rows.to_cell - rows.from_cell,
                                  Filter::bilinear);
    Image seen(height, width, 1);
    std::fill(seen.pixels.begin(), seen.pixels.end(), std::uint8_t(rounded(std::clamp(paper, 0.0, 255.0))));
    for (int y = 0; y < pixels.height; ++y)
        std::copy_n(pixels.at(y, 0), pixels.width, seen.at(rows.from_cell + y, columns.from_cell));
    return seen;
}

Image reduced(const Image& image) {
    const int longer = std::max(image.width, image.height);
    if (longer <= MOST_PIXELS) return image;
    const auto shorter = [&](int length) {
        return std::max(1, rounded(double(std::int64_t(length) * MOST_PIXELS) / longer));
    };
    return resize(image, shorter(image.width), shorter(image.height), Filter::bilinear);
}

}  // namespace

Image centred(const Image& image, int width, int height, int side) {
    Image seen = resize(image, width, height, Filter::bilinear);
    Window window{0, 0, image.width, image.height};
    std::optional<Image> sheet;
    for (int looks = 1; looks < LOOKS; ++looks) {
        const auto ink = find(seen);
        if (!ink || fits(*ink, window, width, height, side)) break;
        if (!sheet) {
            sheet = reduced(image);
            window = {0, 0, sheet->width, sheet->height};
        }
        window = around(*ink, window, width, height, side, *sheet);
        seen = look(*sheet, window, width, height, ink->paper);
    }
    return seen;
}
