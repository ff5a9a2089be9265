// What the command line asks for.
#pragma once

#include <string>
#include <vector>

struct Options {
    std::string model;
    std::vector<std::string> images;
    bool outputs = false;
    bool pixels = false;
    int time = 0;  // repeats to measure; 0: answer
};

constexpr const char* USAGE =
    "usage: classify [--outputs] [--pixels] [--time N] MODEL IMAGE...\n"
    "Print the label of an image; of several images a line each: file, tab, label.\n"
    "  MODEL      exported TorchScript (.pt) or an AOTInductor package (.pt2), its contract inside\n"
    "  --outputs  print the model's outputs, too: a tab, then one value a label\n"
    "  --pixels   print the pixels that the model takes, too: a tab, then two hex digits a value\n"
    "  --time N   print as JSON the seconds that loading, reading and answering take, of N repeats\n";

// Throws std::invalid_argument with what is wrong.
Options options_of(int count, char** arguments);
