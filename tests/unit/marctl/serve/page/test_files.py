"""The files of the web page."""

import re

from marctl.serve.page import files as page_files


def test_page_names_no_other_place():
    """No file of the page contains a URL, except the SVG namespace."""
    for name, content in page_files.contents().items():
        found = set(re.findall(rb"\w+://[^\s\"'<]+", content)) - {b"http://www.w3.org/2000/svg"}
        assert not found, name
