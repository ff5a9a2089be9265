// Find the drawing in an image: handler/classifier/image/drawing.py in C++, with the same result.
#pragma once

#include <optional>
#include <vector>

#include "image.h"

// Whole numbers on a grid, row by row.
struct Grid {
    int height = 0, width = 0;
    std::vector<int> values;

    Grid(int height, int width, int value = 0)
        : height(height), width(width), values(std::size_t(height) * width, value) {}

    int& at(int y, int x) { return values[std::size_t(y) * width + x]; }
    int at(int y, int x) const { return values[std::size_t(y) * width + x]; }
};

// A part of a grid; bottom and right are not included.
struct Box {
    int top, left, bottom, right;

    bool operator==(const Box&) const = default;
    int height() const { return bottom - top; }
    int width() const { return right - left; }
};

// What is drawn on a grid. The grids have the size of the part.
struct Drawing {
    Box part;
    Grid ink, others;  // 1 where it is
    Grid paper;        // grey levels
    bool is_dark;
};

// Find the drawing on a grid of grey levels.
std::optional<Drawing> find(const Grid& levels);

// Whether the whole edge has one level.
bool is_even(const Grid& levels);

constexpr int INK = 35;  // percent
