#include "drawing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

namespace {

// The reasons for these are in handler/classifier/image/drawing.py.
constexpr int WHITE = 255, VISIBLE = 24, EVEN = 12, SOFT = 12, LEAST = 5;
constexpr double BAND = 1.0 / 12, SIDE = 0.8, SIDES = 0.9, LEAST_BOX = 0.45, FILLED = 0.55;
constexpr int CORNERS = 3, LEAST_FRAME = 8, FOUR = 4, FRAMES = 3;
constexpr double NEAR = 0.3, COVERS = 0.85, WHOLE = 0.97, LEAVES = 0.6, THIN = 0.15, BEHIND = 0.4;
constexpr int LINES = 3, MOST_CROSSINGS = 7;
constexpr double BOLD = 0.4, BOLD_EDGE = 0.5;
constexpr double FROM_THE_MIDDLE = 0.6, SPECK = 0.04, GAP = 0.2, GAP_AT_EDGE = 0.12, PIECE = 0.5;
constexpr double SHADED_EDGE = 0.1, MIXED = 0.1, PALE_EDGE = 0.8, PALE = 0.7;
constexpr int FULL_INK = 2, STROKE = 8;

// The 8-connected components of a mask, numbered from 1 in the order of their first pixel.
struct Components {
    Grid labels;
    std::vector<int> areas{0};
    std::vector<Box> boxes{{0, 0, 0, 0}};
};

struct Reading {
    Box part;
    Grid ink, others;
    int level;
    bool is_dark;
    Grid strength;
    int least;
};

struct Line {
    int depth = 0;
    double covers = 0;
    bool is_sharp = false;
    std::set<int> numbers;
};

Components components(const Grid& mask) {
    Components found{Grid(mask.height, mask.width)};
    std::vector<std::pair<int, int>> waiting;
    for (int top = 0; top < mask.height; ++top)
        for (int left = 0; left < mask.width; ++left) {
            if (!mask.at(top, left) || found.labels.at(top, left)) continue;
            const int number = int(found.areas.size());
            found.areas.push_back(0);
            found.boxes.push_back({top, left, top + 1, left + 1});
            found.labels.at(top, left) = number;
            waiting.push_back({top, left});
            while (!waiting.empty()) {
                const auto [y, x] = waiting.back();
                waiting.pop_back();
                ++found.areas[number];
                Box& box = found.boxes[number];
                box = {std::min(box.top, y), std::min(box.left, x), std::max(box.bottom, y + 1), std::max(box.right, x + 1)};
                for (int near_y = std::max(y - 1, 0); near_y <= std::min(y + 1, mask.height - 1); ++near_y)
                    for (int near_x = std::max(x - 1, 0); near_x <= std::min(x + 1, mask.width - 1); ++near_x)
                        if (mask.at(near_y, near_x) && !found.labels.at(near_y, near_x)) {
                            found.labels.at(near_y, near_x) = number;
                            waiting.push_back({near_y, near_x});
                        }
            }
        }
    return found;
}

Grid part_of(const Grid& grid, const Box& part) {
    Grid cut(part.height(), part.width());
    for (int y = 0; y < cut.height; ++y)
        for (int x = 0; x < cut.width; ++x) cut.at(y, x) = grid.at(part.top + y, part.left + x);
    return cut;
}

template <typename Function>
Grid made(const Grid& like, Function value) {
    Grid grid(like.height, like.width);
    for (std::size_t i = 0; i < grid.values.size(); ++i) grid.values[i] = value(like.values[i]);
    return grid;
}

int median(std::vector<int> sorted) {
    const auto middle = sorted.begin() + std::ptrdiff_t(sorted.size() - 1) / 2;
    std::nth_element(sorted.begin(), middle, sorted.end());
    return *middle;
}

// The median of the dark or of the light levels, whichever are more: the median of all may be neither.
int most_common(const Grid& levels) {
    const auto [darkest, lightest] = std::minmax_element(levels.values.begin(), levels.values.end());
    const int middle = (*darkest + *lightest) >> 1;  // rounded down, also below 0
    std::vector<int> sides[2];
    for (int level : levels.values) sides[level > middle].push_back(level);
    return median(sides[2 * sides[1].size() > levels.values.size()]);
}

// The values along the four edges, as rows and columns: a corner counts twice.
std::vector<int> edge_of(const Grid& grid) {
    std::vector<int> edge;
    for (int y : {0, grid.height - 1})
        for (int x = 0; x < grid.width; ++x) edge.push_back(grid.at(y, x));
    for (int x : {0, grid.width - 1})
        for (int y = 0; y < grid.height; ++y) edge.push_back(grid.at(y, x));
    return edge;
}

// Take out what light from one side does; return the levels, and what the light did, if it did anything.
std::pair<Grid, std::optional<Grid>> in_even_light(const Grid& levels) {
    const auto edge = edge_of(levels);
    const auto [darkest, lightest] = std::minmax_element(edge.begin(), edge.end());
    if (*lightest - *darkest <= EVEN) return {levels, std::nullopt};
    const int middle = median(levels.values);
    int farthest = 0;
    for (int level : levels.values) farthest = std::max(farthest, std::abs(level - middle));
    const int most = std::max(2 * VISIBLE, farthest * INK / 100);
    std::int64_t count = 0, x1 = 0, y1 = 0, x2 = 0, y2 = 0, x_y = 0, v1 = 0, x_v = 0, y_v = 0;
    for (int row = 0; row < levels.height; ++row)
        for (int column = 0; column < levels.width; ++column) {
            const std::int64_t level = levels.at(row, column);
            if (std::abs(level - middle) > most) continue;
            const std::int64_t x = 2 * column + 1 - levels.width, y = 2 * row + 1 - levels.height;
            ++count, x1 += x, y1 += y, x2 += x * x, y2 += y * y, x_y += x * y;
            v1 += level, x_v += x * level, y_v += y * level;
        }
    const double xx = double(count * x2 - x1 * x1), yy = double(count * y2 - y1 * y1);
    const double xy = double(count * x_y - x1 * y1);
    const double xv = double(count * x_v - x1 * v1), yv = double(count * y_v - y1 * v1);
    const double determinant = xx * yy - xy * xy;
    if (determinant <= 0) return {levels, std::nullopt};
    const double right = (xv * yy - yv * xy) / determinant, below = (yv * xx - xv * xy) / determinant;
    Grid even = levels, light(levels.height, levels.width);
    for (int row = 0; row < levels.height; ++row)
        for (int column = 0; column < levels.width; ++column) {
            const double across = right * (2 * column + 1 - levels.width), down = below * (2 * row + 1 - levels.height);
            light.at(row, column) = int(std::floor(across + down + 0.5));
            even.at(row, column) -= light.at(row, column);
        }
    return {even, light};
}

// Whether all ink is in one place and neither a frame nor a line along an edge can be in it.
bool is_plain(const Grid& mask) {
    std::vector<int> rows(mask.height), columns(mask.width);
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x) rows[y] |= mask.at(y, x), columns[x] |= mask.at(y, x);
    Box box{};
    for (const auto* used : {&rows, &columns}) {
        const int first = int(std::find(used->begin(), used->end(), 1) - used->begin());
        const int last = int(used->rend() - std::find(used->rbegin(), used->rend(), 1));
        if (std::count(used->begin(), used->end(), 1) < last - first || last - first >= COVERS * int(used->size()))
            return false;
        (used == &rows ? box.top : box.left) = first;
        (used == &rows ? box.bottom : box.right) = last;
    }
    if (box.height() < LEAST_BOX * mask.height || box.width() < LEAST_BOX * mask.width) return true;
    const int tall = std::max(1, int(box.height() * BAND)), wide = std::max(1, int(box.width() * BAND));
    int above = 0, below = 0, before = 0, behind = 0;
    for (int x = box.left; x < box.right; ++x) {
        int top = 0, bottom = 0;
        for (int depth = 0; depth < tall; ++depth)
            top |= mask.at(box.top + depth, x), bottom |= mask.at(box.bottom - 1 - depth, x);
        above += top, below += bottom;
    }
    for (int y = box.top; y < box.bottom; ++y) {
        int left = 0, right = 0;
        for (int depth = 0; depth < wide; ++depth)
            left |= mask.at(y, box.left + depth), right |= mask.at(y, box.right - 1 - depth);
        before += left, behind += right;
    }
    // A frame covers all four.
    return std::min(above, below) < SIDE * box.width() || std::min(before, behind) < SIDE * box.height();
}

// The first line behind those of a frame.
int first_free(const std::vector<double>& covered) {
    const int count = int(covered.size());
    int free = 0;
    for (int line = 0; line < count / 3; ++line) {
        if (covered[line] > LEAVES)
            free = line + 1;
        else if (line > count / 8.0)
            break;
    }
    return free;
}

// What is inside of a component of this shape, if it is a frame or a panel.
std::optional<Box> inside_frame(const Grid& shape, int touched) {
    const int height = shape.height, width = shape.width;
    const int tall = std::max(1, int(height * BAND)), wide = std::max(1, int(width * BAND));
    const auto any = [&](const Box& part) {
        for (int y = part.top; y < part.bottom; ++y)
            for (int x = part.left; x < part.right; ++x)
                if (shape.at(y, x)) return 1;
        return 0;
    };
    const auto covered_across = [&](int top) {
        int count = 0;
        for (int x = 0; x < width; ++x) count += any({top, x, top + tall, x + 1});
        return double(count) / width;
    };
    const auto covered_down = [&](int left) {
        int count = 0;
        for (int y = 0; y < height; ++y) count += any({y, left, y + 1, left + wide});
        return double(count) / height;
    };
    const double covered[] = {covered_across(0), covered_across(height - tall), covered_down(0), covered_down(width - wide)};
    const int corners = any({0, 0, tall, wide}) + any({0, width - wide, tall, width}) +
                        any({height - tall, 0, height, wide}) + any({height - tall, width - wide, height, width});
    const double sum = ((covered[0] + covered[1]) + covered[2]) + covered[3];
    if (*std::min_element(covered, covered + 4) < SIDE || sum < SIDES * 4 || corners < CORNERS) return std::nullopt;
    std::vector<double> rows(height), columns(width);
    int count = 0;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) rows[y] += shape.at(y, x), columns[x] += shape.at(y, x), count += shape.at(y, x);
    if (double(count) / (height * width) > FILLED) {
        if (touched <= 1) return Box{1, 1, height - 1, width - 1};
        if (touched < FOUR) return std::nullopt;
    }
    for (double& row : rows) row /= width;
    for (double& column : columns) column /= height;
    Box box{first_free(rows), first_free(columns), 0, 0};
    box.bottom = height - first_free({rows.rbegin(), rows.rend()});
    box.right = width - first_free({columns.rbegin(), columns.rend()});
    if (box.height() < LEAST || box.width() < LEAST || std::max(rows[box.top], rows[box.bottom - 1]) > LEAVES ||
        std::max(columns[box.left], columns[box.right - 1]) > LEAVES)
        return std::nullopt;
    return box;
}

// Look for a line along an edge: row 0 of the labels is the edge, seen from `side`.
Line line_along(const Components& parts, int side) {
    const Grid& labels = parts.labels;
    const bool is_upright = side >= 2, is_far = side % 2;
    const int count = is_upright ? labels.width : labels.height, length = is_upright ? labels.height : labels.width;
    const auto at = [&](int depth, int place) {
        const int row = is_far ? count - 1 - depth : depth;
        return is_upright ? labels.at(place, row) : labels.at(row, place);
    };
    const int reach = std::min(count, std::max(2, int(count * NEAR)));
    std::vector<double> covered(reach);
    for (int depth = 0; depth < reach; ++depth) {
        int inked = 0;
        for (int place = 0; place < length; ++place)
            inked += at(depth, place) || (depth > 0 && at(depth - 1, place)) || (count > reach && at(depth + 1, place));
        covered[depth] = double(inked) / length;
    }
    const auto first = std::find_if(covered.begin(), covered.end(), [](double share) { return share >= COVERS; });
    if (first == covered.end()) return {};
    Line line;
    line.depth = int(first - covered.begin());
    while (line.depth < reach && covered[line.depth] >= LEAVES) ++line.depth;
    line.covers = *std::max_element(covered.begin(), covered.begin() + line.depth);
    int after = 0;
    for (int place = 0; place < length; ++place) after += at(std::min(line.depth + 1, count - 1), place) != 0;
    line.is_sharp = double(after) / length <= BEHIND && line.depth <= THIN * count;
    for (int depth = 0; depth < line.depth; ++depth)
        for (int place = 0; place < length; ++place)
            if (at(depth, place)) line.numbers.insert(at(depth, place));
    return line;
}

// Whether there is a line along every edge, or else ink in the first row or column behind it.
bool fills(const Grid& rest, const Line (&lines)[4]) {
    bool inked[4] = {};
    for (int x = 0; x < rest.width; ++x) {
        inked[0] |= rest.at(0, x) != 0;
        inked[1] |= rest.at(rest.height - 1, x) != 0;
    }
    for (int y = 0; y < rest.height; ++y) {
        inked[2] |= rest.at(y, 0) != 0;
        inked[3] |= rest.at(y, rest.width - 1) != 0;
    }
    for (int edge = 0; edge < 4; ++edge)
        if (!lines[edge].depth && !inked[edge]) return false;
    return true;
}

// What is between lines along the edges, if there are any and the drawing is not made of them.
std::optional<Box> between_lines(const Components& parts) {
    const Line lines[] = {line_along(parts, 0), line_along(parts, 1), line_along(parts, 2), line_along(parts, 3)};
    const Box inside{lines[0].depth, lines[2].depth, parts.labels.height - lines[1].depth, parts.labels.width - lines[3].depth};
    if (inside == Box{0, 0, parts.labels.height, parts.labels.width}) return std::nullopt;
    if (inside.height() < LEAST || inside.width() < LEAST) return std::nullopt;
    std::vector<int> areas(parts.areas.size());
    for (int y = inside.top; y < inside.bottom; ++y)
        for (int x = inside.left; x < inside.right; ++x) ++areas[parts.labels.at(y, x)];
    areas[0] = 0;
    const int largest = *std::max_element(areas.begin(), areas.end());
    if (largest == 0) return std::nullopt;
    std::set<int> hanging;
    for (const Line& line : lines) hanging.insert(line.numbers.begin(), line.numbers.end());
    int own = 0;
    for (int number = 0; number < int(areas.size()); ++number)
        if (!hanging.contains(number)) own = std::max(own, areas[number]);
    const auto there = std::count_if(std::begin(lines), std::end(lines), [](const Line& line) { return line.depth > 0; });
    // If the drawing fills the image, these are strokes of it.
    if (there < LINES && fills(part_of(parts.labels, inside), lines)) return std::nullopt;
    if (own * 2 >= largest) return inside;
    if (there < LINES) return std::nullopt;
    for (const Line& line : lines)
        if (line.depth && (!line.is_sharp || line.covers < WHOLE)) return std::nullopt;
    return inside;
}

std::vector<Box> insides(const Components& parts) {
    const int height = parts.labels.height, width = parts.labels.width;
    std::vector<Box> found;
    for (int number = 1; number < int(parts.boxes.size()); ++number) {
        const Box& box = parts.boxes[number];
        if (box.height() < LEAST_BOX * height || box.width() < LEAST_BOX * width ||
            std::min(box.height(), box.width()) < LEAST_FRAME)
            continue;
        const int touched = (box.top == 0) + (box.left == 0) + (box.bottom == height) + (box.right == width);
        const Grid shape = made(part_of(parts.labels, box), [&](int label) { return int(label == number); });
        if (const auto inside = inside_frame(shape, touched))
            found.push_back({inside->top + box.top, inside->left + box.left, inside->bottom + box.top, inside->right + box.left});
    }
    if (const auto inside = between_lines(parts)) found.push_back(*inside);
    return found;
}

// Which components are the drawing's (2), other things (1) or specks (0).
std::vector<int> belonging(const Components& parts) {
    const int height = parts.labels.height, width = parts.labels.width, count = int(parts.areas.size());
    int main = 1;
    double heaviest = 0;
    for (int number = 1; number < count; ++number) {
        const Box& box = parts.boxes[number];
        const double away = std::max(std::abs(double(box.top + box.bottom) / height - 1),
                                     std::abs(double(box.left + box.right) / width - 1));
        const double weight = parts.areas[number] * (1 - FROM_THE_MIDDLE * away);
        if (number == 1 || weight > heaviest) heaviest = weight, main = number;
    }
    std::vector<int> kinds(count);
    std::vector<int> waiting;
    for (int number = 1; number < count; ++number)
        if (number != main && parts.areas[number] >= std::max(2.0, SPECK * parts.areas[main])) {
            kinds[number] = 1;
            waiting.push_back(number);
        }
    kinds[main] = 2;
    Box box = parts.boxes[main];
    const int size = std::max(box.height(), box.width());
    for (std::size_t before = waiting.size() + 1; waiting.size() != before;) {
        before = waiting.size();
        for (int number : std::vector<int>(waiting)) {
            const Box& one = parts.boxes[number];
            const int gap = std::max({one.top - box.bottom, box.top - one.bottom, one.left - box.right, box.left - one.right, 0});
            const bool at_edge = one.top == 0 || one.left == 0 || one.bottom == height || one.right == width;
            if (gap > (at_edge ? GAP_AT_EDGE : GAP) * size) continue;
            if (at_edge && gap > 0 && parts.areas[number] < PIECE * parts.areas[main]) continue;
            kinds[number] = 2;
            waiting.erase(std::find(waiting.begin(), waiting.end(), number));
            box = {std::min(box.top, one.top), std::min(box.left, one.left), std::max(box.bottom, one.bottom), std::max(box.right, one.right)};
        }
    }
    return kinds;
}

// The share of the edge that is inked.
double at_edge(const Grid& ink) {
    const auto edge = edge_of(ink);
    return double(std::count(edge.begin(), edge.end(), 1)) / (2 * (ink.height + ink.width));
}

// Find ink on evenly lit paper; `contrast` is that of what lies around this part.
std::optional<Reading> read(const Grid& levels, int contrast = 0, int depth = 0) {
    const auto [darkest, lightest] = std::minmax_element(levels.values.begin(), levels.values.end());
    int level = is_even(levels) ? levels.at(0, 0) : most_common(levels);
    bool is_dark = *lightest - level < level - *darkest;
    const int most = is_dark ? level - *darkest : *lightest - level;
    if (most < VISIBLE || 100 * most < INK * contrast) return std::nullopt;
    const int least = (INK * most + 99) / 100;
    Grid strength = made(levels, [&](int one) { return is_dark ? level - one : one - level; });
    const auto strong = [&](int one) { return int(one >= least); };
    Grid mask = made(strength, strong);
    const Box whole{0, 0, levels.height, levels.width};
    if (is_plain(mask)) return Reading{whole, mask, made(mask, [](int) { return 0; }), level, is_dark, strength, least};
    const auto inked = std::count(mask.values.begin(), mask.values.end(), 1);
    int corners = 0;
    for (int y = 0; y < mask.height; y += std::max(mask.height - 1, 1))
        for (int x = 0; x < mask.width; x += std::max(mask.width - 1, 1)) corners += mask.at(y, x);
    if (inked > BOLD * mask.values.size() && at_edge(mask) > BOLD_EDGE && corners >= CORNERS) {
        // A bold drawing that fills the image: there is more ink than paper, but not along the edge.
        level += is_dark ? -most : most;
        is_dark = !is_dark;
        strength = made(strength, [&](int one) { return most - one; });
        mask = made(strength, strong);
    }
    const Components parts = components(mask);
    if (depth < FRAMES)
        for (const Box& part : insides(parts))
            if (auto reading = read(part_of(levels, part), most, depth + 1)) {
                const Box& own = reading->part;
                reading->part = {own.top + part.top, own.left + part.left, own.bottom + part.top, own.right + part.left};
                return reading;
            }
    const auto kinds = belonging(parts);
    return Reading{whole, made(parts.labels, [&](int label) { return int(kinds[label] == 2); }),
                   made(parts.labels, [&](int label) { return int(kinds[label] == 1); }), level, is_dark, strength, least};
}

// Whether what was taken for ink is more likely a shadow, with ink in it.
bool is_shaded(const Reading& reading) {
    const int least = reading.least;
    Grid either = reading.ink;
    int opposite = 0, inked = 0, all_pale = 0;
    for (std::size_t i = 0; i < either.values.size(); ++i) {
        const int strength = reading.strength.values[i];
        inked += reading.ink.values[i];
        all_pale += reading.ink.values[i] && strength < FULL_INK * least;
        if (strength <= -least) ++opposite, either.values[i] = 1;
    }
    if (at_edge(either) <= SHADED_EDGE) return false;
    if (opposite > MIXED * inked) return true;
    int strong = 0, pale = 0;
    for (int one : edge_of(reading.strength)) strong += one >= least, pale += one >= least && one < FULL_INK * least;
    return pale > PALE_EDGE * strong && all_pale > PALE * inked;
}

// Whether the ink is that of stripes, noise or a page, which goes on beyond the edges.
bool is_pattern(const Reading& reading) {
    const Grid& ink = reading.ink;
    if (std::ranges::count(reading.others.values, 1) > std::ranges::count(ink.values, 1)) return true;
    std::vector<int> around;
    for (int x = 0; x < ink.width; ++x) around.push_back(ink.at(0, x));
    for (int y = 1; y < ink.height; ++y) around.push_back(ink.at(y, ink.width - 1));
    for (int x = ink.width - 2; x >= 0; --x) around.push_back(ink.at(ink.height - 1, x));
    for (int y = ink.height - 2; y >= 0; --y) around.push_back(ink.at(y, 0));
    int crossings = 0;
    for (std::size_t i = 1; i < around.size(); ++i) crossings += around[i] > around[i - 1];
    return crossings > MOST_CROSSINGS;
}

// Whether the levels change so slowly that this is light, and no ink.
bool is_soft(const Grid& levels, const Reading& reading) {
    int steepest = 0;
    for (int y = 0; y < levels.height; ++y)
        for (int x = 0; x < levels.width; ++x) {
            if (y > 0) steepest = std::max(steepest, std::abs(levels.at(y, x) - levels.at(y - 1, x)));
            if (x > 0) steepest = std::max(steepest, std::abs(levels.at(y, x) - levels.at(y, x - 1)));
        }
    return SOFT * steepest < *std::ranges::max_element(reading.strength.values);
}

// Levels without dark strokes up to a quarter of the grid wide: a closing.
Grid paper_around(const Grid& levels) {
    const int reach = std::max(2, std::max(levels.height, levels.width) / STROKE);
    Grid closed = levels;
    for (bool is_largest : {true, false})
        for (bool is_across : {false, true}) {
            Grid next = closed;
            for (int y = 0; y < levels.height; ++y)
                for (int x = 0; x < levels.width; ++x)
                    for (int shift = -reach; shift <= reach; ++shift) {
                        const int one = closed.at(is_across ? y : std::clamp(y + shift, 0, levels.height - 1),
                                                  is_across ? std::clamp(x + shift, 0, levels.width - 1) : x);
                        next.at(y, x) = is_largest ? std::max(next.at(y, x), one) : std::min(next.at(y, x), one);
                    }
            closed = next;
        }
    return closed;
}

struct Lit {
    Reading reading;
    Grid paper;
    int contrast;
};

// Find dark ink on paper in a shadow.
std::optional<Lit> without_shadow(const Grid& levels) {
    const Grid paper = paper_around(levels);
    Grid lit = levels;
    for (std::size_t i = 0; i < lit.values.size(); ++i)
        lit.values[i] = std::min(levels.values[i] * WHITE / std::max(paper.values[i], 1), WHITE);
    auto reading = read(lit);
    if (!reading || !reading->is_dark || at_edge(reading->ink) > SHADED_EDGE) return std::nullopt;
    int contrast = INT32_MIN;
    const Box& part = reading->part;
    for (int y = 0; y < part.height(); ++y)
        for (int x = 0; x < part.width(); ++x)
            if (reading->ink.at(y, x))
                contrast = std::max(contrast, paper.at(part.top + y, part.left + x) - levels.at(part.top + y, part.left + x));
    return Lit{*reading, paper, contrast};
}

Drawing drawing(const Reading& reading, const Grid& light, int level, bool is_dark) {
    const Grid paper = made(part_of(light, reading.part), [&](int one) { return one + level; });
    return {reading.part, reading.ink, reading.others, paper, is_dark};
}

}  // namespace

bool is_even(const Grid& levels) {
    const auto edge = edge_of(levels);
    return std::all_of(edge.begin(), edge.end(), [&](int one) { return one == edge.front(); });
}

std::optional<Drawing> find(const Grid& levels) {
    const auto [even, light] = in_even_light(levels);
    const auto reading = read(even);
    if (!reading || (light && is_soft(even, *reading))) return std::nullopt;
    if (reading->part != Box{0, 0, levels.height, levels.width} || !is_shaded(*reading)) {
        if (is_pattern(*reading)) return std::nullopt;
        return drawing(*reading, light.value_or(Grid(levels.height, levels.width)), reading->level, reading->is_dark);
    }
    const auto dark = without_shadow(levels);
    const auto bright = without_shadow(made(levels, [](int level) { return WHITE - level; }));
    if (dark && (!bright || dark->contrast >= bright->contrast)) return drawing(dark->reading, dark->paper, 0, true);
    if (!bright) return std::nullopt;
    return drawing(bright->reading, made(bright->paper, [](int level) { return WHITE - level; }), 0, false);
}
