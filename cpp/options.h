// What the command line asks for.
#pragma once

#include <string>
#include <vector>

struct Options {
    std::string model;
    std::vector<std::string> images;
    bool outputs = false;
    bool pixels = false;
    int time = 0;  // repeats to measure; 0: classify
};

constexpr const char* USAGE =
    "usage: classify [--outputs] [--pixels] [--time N] MODEL IMAGE...\n"
    "Print the label of an image; for several images, one line each: file, tab, label.\n"
    "  MODEL      exported TorchScript (.pt) or an AOTInductor package (.pt2), its contract inside\n"
    "  --outputs  also print the model's outputs: a tab, then one value per label\n"
    "  --pixels   also print the model's input pixels: a tab, then two hex digits per value\n"
    "  --time N   print as JSON how many seconds loading, reading and classifying take, over N repeats\n";

// Throws std::invalid_argument with what is wrong.
Options options_of(int count, char** arguments);
