#include "centring.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "drawing.h"
#include "resample.h"

namespace {

// The reasons for these are in handler/classifier/image/centring.py.
constexpr int GRID = 72, FINE = 3, WHITE = 255, FULL = 5, CONTRAST = 200, SMALL = 14;
constexpr double SIZE_TOLERANCE = 1.5, PLACE_TOLERANCE = 1.5;

struct Window {
    double left, top, pixel;
};

// Which of the window's cells lie within limits, and which part of the image they are; ends are not included.
struct Span {
    int from_cell, to_cell;
    double first, last;
};

// How far each pixel is from the paper, towards the ink, and where ink is.
struct Look {
    Grid strength, inked;
};

int rounded(double number) { return int(std::floor(number + 0.5)); }

Grid grid_of(const Image& image) {
    Grid grid(image.height, image.width);
    std::copy(image.pixels.begin(), image.pixels.end(), grid.values.begin());
    return grid;
}

Image image_of(const Grid& grid) {
    Image image(grid.height, grid.width, 1);
    std::copy(grid.values.begin(), grid.values.end(), image.pixels.begin());
    return image;
}

// The extent of the ink and the mean place of its pixels.
struct Ink {
    Box box;
    double x, y;

    int side() const { return std::max(box.width(), box.height()); }
};

Ink measured(const Grid& inked) {
    int left = inked.width, right = -1, top = inked.height, bottom = -1;
    std::int64_t count = 0, across = 0, down = 0;
    for (int y = 0; y < inked.height; ++y)
        for (int x = 0; x < inked.width; ++x) {
            if (!inked.at(y, x)) continue;
            left = std::min(left, x), right = std::max(right, x);
            top = std::min(top, y), bottom = std::max(bottom, y);
            ++count, across += x, down += y;
        }
    return {{top, left, bottom + 1, right + 1}, double(across) / double(count) + 0.5,
            double(down) / double(count) + 0.5};
}

// An image that is already as the model knows them, white on black.
std::optional<Image> in_place(const Image& image, int ink_side) {
    Grid strength = grid_of(image);
    const int paper = strength.at(0, 0);
    if ((paper != 0 && paper != WHITE) || !is_even(strength)) return std::nullopt;
    if (paper == WHITE)
        for (int& one : strength.values) one = WHITE - one;
    const int most = *std::max_element(strength.values.begin(), strength.values.end());
    if (most < CONTRAST) return std::nullopt;
    Grid inked = strength;
    for (int& one : inked.values) one = one >= (most * INK + 99) / 100;
    const Ink ink = measured(inked);
    if (std::abs(ink.side() - ink_side) > SIZE_TOLERANCE || std::abs(ink.x - image.width / 2.0) > PLACE_TOLERANCE ||
        std::abs(ink.y - image.height / 2.0) > PLACE_TOLERANCE)
        return std::nullopt;
    return image_of(strength);
}

Span within(double start, double pixel, int low, int high, int cells) {
    const int first = std::min(std::max(int(std::ceil((low - start) / pixel)), 0), cells - 1);
    const int last = std::max(std::min(int(std::floor((high - start) / pixel)), cells), first + 1);
    return {first, last, std::max(start + first * pixel, 0.0), std::min(start + last * pixel, double(high))};
}

// An image with FINE or a few more pixels, each way, in one of the model's; and its scale.
struct Near {
    Image image;
    double scale;
};

Near near(const Image& image, double pixel) {
    if (pixel >= FINE) {
        const int factor = int(pixel / FINE);
        return {reduced(image, factor), 1.0 / factor};
    }
    const int factor = int(std::ceil(FINE / pixel));
    return {resize(image, image.width * factor, image.height * factor, Filter::bilinear), double(factor)};
}

// The first pixel of a part of the image at that scale, and the one after the last.
std::pair<int, int> pixels(const Span& span, double scale, int most) {
    const int first = std::min(rounded(span.first * scale), most - 1);
    return {first, std::max(std::min(rounded(span.last * scale), most), first + 1)};
}

// Which of the grid's columns, counted within its part, one of the window's columns lies in.
int cell(int place, double start, double pixel, int low, int high) {
    const double middle = (place + 0.5) * pixel + start;
    return std::clamp(int(std::int64_t(middle)) - low, 0, high - low - 1);
}

// A mask with the pixels around it.
Grid thicker(const Grid& mask) {
    Grid wide(mask.height, mask.width);
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x) {
            if (!mask.at(y, x)) continue;
            for (int near_y = std::max(y - 1, 0); near_y <= std::min(y + 1, mask.height - 1); ++near_y)
                for (int near_x = std::max(x - 1, 0); near_x <= std::min(x + 1, mask.width - 1); ++near_x)
                    wide.at(near_y, near_x) = 1;
        }
    return wide;
}

Look look(const Image& image, const Drawing& drawing, int factor, int width, int height, int ink_side) {
    const Box& part = drawing.part;
    const Ink ink = measured(drawing.ink);
    const double pixel = double(ink.side() * factor) / ink_side;
    const double x = (part.left + ink.x) * factor, y = (part.top + ink.y) * factor;
    const Window window{x - pixel * width / 2, y - pixel * height / 2, pixel};
    const Span columns = within(window.left, pixel, part.left * factor, std::min(part.right * factor, image.width), width);
    const Span rows = within(window.top, pixel, part.top * factor, std::min(part.bottom * factor, image.height), height);
    const auto [source, scale] = near(image, pixel);
    const auto [first_x, last_x] = pixels(columns, scale, source.width);
    const auto [first_y, last_y] = pixels(rows, scale, source.height);
    const Image levels = resize(cropped(source, first_x, first_y, last_x - first_x, last_y - first_y),
                                columns.to_cell - columns.from_cell, rows.to_cell - rows.from_cell, Filter::bilinear);
    const Grid around_others = thicker(drawing.others), around_ink = thicker(drawing.ink);
    const bool is_alone = std::ranges::none_of(drawing.others.values, [](int one) { return one; });
    Look seen{Grid(height, width), Grid(height, width)};
    for (int row = rows.from_cell; row < rows.to_cell; ++row)
        for (int column = columns.from_cell; column < columns.to_cell; ++column) {
            const int grid_y = cell(row, window.top / factor, pixel / factor, part.top, part.bottom);
            const int grid_x = cell(column, window.left / factor, pixel / factor, part.left, part.right);
            const int level = *levels.at(row - rows.from_cell, column - columns.from_cell);
            const int paper = drawing.paper.at(grid_y, grid_x);
            seen.inked.at(row, column) = is_alone || drawing.ink.at(grid_y, grid_x);
            if (around_others.at(grid_y, grid_x) && !around_ink.at(grid_y, grid_x)) continue;
            seen.strength.at(row, column) = drawing.is_dark ? paper - level : level - paper;
        }
    return seen;
}

// 0 where there is paper, and 255 where ink is as strong as in most of the drawing.
Image white_on_black(Look seen) {
    int most = 0;
    for (std::size_t i = 0; i < seen.strength.values.size(); ++i) {
        int& one = seen.strength.values[i];
        one = std::max(one, 0);
        if (seen.inked.values[i]) most = std::max(most, one);
    }
    if (most == 0) return image_of(seen.strength);
    std::vector<int> strong;
    for (std::size_t i = 0; i < seen.strength.values.size(); ++i)
        if (seen.inked.values[i] && seen.strength.values[i] * 100 >= INK * most)
            strong.push_back(seen.strength.values[i]);
    std::sort(strong.begin(), strong.end());
    const int full = strong[strong.size() - 1 - strong.size() / FULL];
    for (int& one : seen.strength.values) one = std::min((one * WHITE + full / 2) / full, WHITE);
    return image_of(seen.strength);
}

// A drawing, and how many of the image's pixels, each way, are one of the grid that it is on.
struct Found {
    Drawing drawing;
    int factor;
};

std::optional<Found> found_in(const Image& image) {
    const int factor = (std::max(image.width, image.height) + GRID - 1) / GRID;
    if (auto drawing = find(grid_of(reduced(image, factor)))) return Found{*drawing, factor};
    return std::nullopt;
}

// The part of the image with the ink and, on each side, as much again.
Image surroundings(const Image& image, const Box& part, const Box& ink, int factor) {
    const int margin = std::max(ink.width(), ink.height());
    const int left = std::max(ink.left - margin, 0) + part.left, top = std::max(ink.top - margin, 0) + part.top;
    const int right = std::min(ink.right + part.left + margin, part.right);
    const int bottom = std::min(ink.bottom + part.top + margin, part.bottom);
    const int x = left * factor, y = top * factor;
    return cropped(image, x, y, std::min(right * factor, image.width) - x, std::min(bottom * factor, image.height) - y);
}

}  // namespace

Image centred(const Image& image, int width, int height, int ink_side) {
    if (image.width == width && image.height == height)
        if (const auto placed = in_place(image, ink_side)) return *placed;
    const auto found = found_in(image);
    if (!found) return resize(image, width, height, Filter::bilinear);
    const auto& [drawing, factor] = *found;
    if (const Box ink = measured(drawing.ink).box; factor > 1 && std::max(ink.width(), ink.height()) < SMALL) {
        const Image part = surroundings(image, drawing.part, ink, factor);
        if (const auto closer = found_in(part))
            return white_on_black(look(part, closer->drawing, closer->factor, width, height, ink_side));
    }
    return white_on_black(look(image, drawing, factor, width, height, ink_side));
}
