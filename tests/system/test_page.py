"""The page in a real Chromium (drawing, dropping, explaining), through Flask and the proxy."""

import re
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from bench.servers.chromium import STROKES, chromium, draw
from marctl.serve.front.nginx import Opening, Proxy
from marctl.serve.front.supervisor import THROUGH
from marctl.serve.page import files as page_files
from marctl.serve.torchserve.settings import body_limit
from tests.conftest import DIGITS, IMAGES, ROOT, free_port
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.chromium

DESK, TELEPHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
NOWHERE = "http://127.0.0.1:1"
MILLISECONDS = PATIENCE * 1000
FINGER = 44  # pixels that a finger needs
FILES = tuple(page_files.addresses("{}"))
expect.set_options(timeout=MILLISECONDS)


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here; while it runs, nothing else can use asyncio."""
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser, flask_server):
    """A function that opens the page in a new profile; it must contact no other server."""
    contexts, wrong = [], []

    def opened(url=flask_server.url, viewport=DESK, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(f"{url}/") else wrong.append(asked.url))
        page.goto(f"{url}/")
        expect(page.locator("#bars li")).to_have_count(10)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def door(server, tmp_path_factory, archive):
    """The reverse proxy's URL, in front of the shared TorchServe."""
    with tempfile.TemporaryDirectory(prefix="page-test-") as scratch:
        Path(scratch).chmod(THROUGH)
        opening = Opening(
            free_port(), server.inference, NOWHERE, Path(scratch), body_limit(ROOT / "config.properties"), 20,
            rate=1000, connections=1000,
        )  # fmt: skip
        front_door = Proxy(tmp_path_factory.mktemp("door"))
        front_door.open(opening)
        page_files.tell(opening.scratch, [archive])
        yield opening.address
        front_door.close()


def answered(page, label):
    """Wait for an answer, and check that it is the expected one."""
    expect(page.locator("body")).to_have_attribute("data-state", "answered")
    expect(page.locator("#label")).to_have_text(label)


def dropped(page, name, kind, data, event="drop"):
    """Drop a file on the page, or paste it, with the browser's own DataTransfer."""
    page.evaluate(
        """([name, kind, bytes, event]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: kind }));
            const paper = document.getElementById("paper");
            paper.dispatchEvent(event === "paste"
                ? new ClipboardEvent(event, { clipboardData: data, bubbles: true })
                : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, kind, list(data), event],
    )


def pixels(page):
    """Return a screenshot."""
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


@pytest.mark.parametrize("digit", STROKES)
def test_drawn_digit_is_read(open_page, digit):
    """Black on white, as drawn by hand: the digit, ten bars that add up, and the model's input."""
    page = open_page()
    draw(page, digit)
    answered(page, digit)
    shares = [float(text.rstrip("%")) for text in page.locator("#bars .percent").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=1)  # each is rounded
    assert page.locator("#bars .first .name").inner_text() == digit
    assert page.evaluate("[seen.width, seen.height]") == [28, 28]


def test_examples_are_read(open_page):
    """Each example digit is drawn and read; reduced motion saves half a second each."""
    page = open_page(reduced_motion="reduce")
    for digit in DIGITS:
        page.get_by_role("button", name=f"Draw a {digit}").click()
        answered(page, digit)
    expect(page.locator("#said")).to_have_text(re.compile("^It is 9, "))


@pytest.mark.nginx
def test_page_works_through_the_front_door(open_page, door):
    """The same page gets the same answer from TorchServe."""
    page = open_page(door)
    draw(page, "3")
    answered(page, "3")
    expect(page.locator("#model")).to_have_text(re.compile(r"^convnet 1\.0 · [0-9a-f]{12}$"))


@pytest.mark.nginx
def test_page_is_fenced_in(flask_server, door):
    """Both servers send the same bytes, with headers that block everything from elsewhere."""
    for file in FILES:
        ours, theirs = (requests.get(url + file, timeout=PATIENCE) for url in (flask_server.url, door))
        assert ours.content == theirs.content
        for reply in (ours, theirs):
            assert reply.status_code == 200
            assert {name: reply.headers[name] for name in page_files.HEADERS} == page_files.HEADERS
            assert reply.headers["Content-Type"].partition(";")[0] in page_files.TYPES.values()
            tag = {"If-None-Match": reply.headers["ETag"]}
            assert requests.get(reply.url, headers=tag, timeout=PATIENCE).status_code == 304
    policy = page_files.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for missing in ("/page/nothing.js", "/page/index.html", "/page/../page_files.py"):
        assert requests.get(flask_server.url + missing, timeout=PATIENCE).status_code == 404


def test_chosen_file_is_read(open_page):
    """It works with the button, and again after Clear."""
    page = open_page()
    for _ in range(2):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Picture").click()
        chooser.value.set_files(IMAGES / "5-large.png")
        answered(page, "5")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#label")).to_have_text("?")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_file_that_falls_on_the_page_is_read(open_page, event):
    """The file's own bytes are sent; the drawing area shows it."""
    page = open_page()
    dropped(page, "7.png", "image/png", DIGITS["7"], event)
    answered(page, "7")
    expect(page.locator("#paper")).to_have_attribute("aria-label", "Drawing area, holds the picture 7.png")


def test_file_that_is_no_picture_is_said_kindly(open_page):
    """The server's message and hint are shown, and the next drawing is read normally."""
    page = open_page()
    dropped(page, "notes.txt", "text/plain", b"hello")
    expect(page.locator("#message")).to_have_text(re.compile("^Cannot read 5 bytes"))
    expect(page.locator("#trouble")).to_have_text(re.compile("PNG"))
    expect(page.locator("#unseen")).to_have_text(re.compile(r"^notes\.txt\s+cannot be shown here$"))
    page.get_by_role("button", name="Undo").click()
    draw(page, "1")
    answered(page, "1")
    expect(page.locator("#trouble")).to_be_hidden()


def test_server_that_is_away_is_asked_again(open_page):
    """If no server is listening, the page says so, and gets the answer once one is."""
    page = open_page()
    page.route("**/predictions/**", lambda route: route.abort("connectionrefused"))
    with page.expect_event("requestfailed"):  # the only request: a file is sent once
        page.set_input_files("#chosen", IMAGES / "2.png")
    page.unroute("**/predictions/**")
    expect(page.locator("#message")).to_have_text("The server does not answer.")
    answered(page, "2")


# Decoding the first image is delayed by this many milliseconds.
SLOW_PICTURE = """(milliseconds) => {
    const real = createImageBitmap;
    let pause = milliseconds;
    window.createImageBitmap = async (file) => {
        const waited = pause;
        pause = 0;
        await new Promise((done) => setTimeout(done, waited));
        return real(file);
    };
}"""


def test_file_that_is_gone_is_no_fault_of_the_server(open_page, tmp_path):
    """The message blames the file, and nothing is retried."""
    page = open_page()
    picture = tmp_path / "2.png"
    shutil.copyfile(IMAGES / "2.png", picture)
    page.evaluate(SLOW_PICTURE, 300)
    page.set_input_files("#chosen", picture)
    picture.unlink()
    expect(page.locator("#message")).to_have_text("This file cannot be read.")
    expect(page.locator("#again")).to_be_hidden()


@pytest.mark.parametrize("newer", ["picture", "nothing", "drawing"])
def test_slow_picture_is_not_put_over_a_newer_one(open_page, newer):
    """The newest input stays: another image, nothing after Escape, or a drawing."""
    page = open_page()
    page.evaluate(SLOW_PICTURE, 1500)
    dropped(page, "5.png", "image/png", DIGITS["5"])
    if newer == "picture":
        dropped(page, "2.png", "image/png", DIGITS["2"])
    elif newer == "nothing":
        page.keyboard.press("Escape")
    else:
        draw(page, "2")
    page.wait_for_timeout(2000)
    expect(page.locator("#label")).to_have_text("?" if newer == "nothing" else "2")


def test_late_answer_to_what_was_rubbed_out_is_dropped(open_page):
    """The first answer arrives after the second one, and changes nothing."""
    page = open_page()
    held, rubbed_out = [], []

    def hold(route):
        if rubbed_out:
            route.continue_()
        else:
            held.append(route)

    page.route("**/predictions/**", hold)
    draw(page, "1")
    expect(page.locator("body")).to_have_attribute("data-state", "slow")
    page.get_by_role("button", name="Clear").click()
    rubbed_out.append(True)
    draw(page, "7")
    answered(page, "7")
    for route in held:
        route.fulfill(json={"top_k": [{"label": "1", "index": 1, "probability": 1}], "model": {}})
    page.wait_for_timeout(50)
    answered(page, "7")


def test_undo_and_clear_lead_back(open_page):
    """Undo removes a stroke or restores what was cleared; at the end the drawing area is empty."""
    page = open_page()
    undo, clear = (page.get_by_role("button", name=name) for name in ("Undo", "Clear"))
    expect(undo).to_be_disabled()
    draw(page, "4")
    answered(page, "4")
    clear.click()
    expect(page.locator("#label")).to_have_text("?")
    page.keyboard.press("Control+z")
    answered(page, "4")
    undo.click()
    undo.click()
    expect(page.locator("#paper")).to_have_attribute("aria-label", "Drawing area, empty")
    expect(undo).to_be_disabled()


def test_pixels_that_decided_are_shown(open_page):
    """The button shows an overlay in two colours with a legend, and hides it again."""
    page = open_page()
    draw(page, "8")
    answered(page, "8")
    why = page.get_by_role("button", name="Which pixels decided?")
    with page.expect_response("**/explanations/**", timeout=MILLISECONDS) as reply:
        why.click()
    expect(page.locator("#legend")).to_have_text(re.compile(r"against\s*for 8"))
    colors = page.evaluate("""() => {
        const { width, height } = overlay;
        const { data } = overlay.getContext("2d").getImageData(0, 0, width, height);
        return [...Array(width * height).keys()].map((i) => [...data.slice(4 * i, 4 * i + 4)]);
    }""")
    shares = [share for row in reply.value.json()["attributions"] for share in row]
    shown = [(share > 0, blue > red) for share, (red, _, blue, strength) in zip(shares, colors, strict=True)
             if strength > 100]  # fmt: skip
    assert set(shown) == {(True, True), (False, False)}
    assert len(shown) < 28 * 28 / 2
    why.click()
    expect(page.locator("#legend")).to_be_hidden()
    assert page.evaluate("overlay.width") == 1


def test_dark_is_dark(open_page):
    """The page follows the system's colour scheme; the drawing area stays white."""
    light, dark = (open_page(color_scheme=scheme) for scheme in ("light", "dark"))
    assert min(pixels(light).getpixel((3, 3))) > 230
    assert max(pixels(dark).getpixel((3, 3))) < 40
    box = dark.locator("#paper").bounding_box()
    assert min(pixels(dark).getpixel((int(box["x"]) + 30, int(box["y"]) + 30))) > 200


def test_telephone_has_room_for_fingers(open_page):
    """Nothing is wider than the screen, buttons are large enough, the answer is visible."""
    page = open_page(viewport=TELEPHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= TELEPHONE["width"]
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= FINGER, button.inner_text()
    expect(page.get_by_role("button", name="Photo")).to_be_visible()
    assert page.locator("#photographed").get_attribute("capture") == "environment"
    touch(page, "6")
    answered(page, "6")
    assert page.evaluate("scrollY") == 0
    box = page.locator("#label").bounding_box()
    assert box["y"] + box["height"] <= TELEPHONE["height"]


def touch(page, digit):
    """Draw with a finger."""
    hand = page.context.new_cdp_session(page)
    box = page.locator("#paper").bounding_box()
    for stroke in STROKES[digit]:
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in stroke]
        kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
        for kind, point in zip(kinds, points, strict=True):
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_keyboard_reaches_everything(open_page):
    """Tab visits every control in the order of the page, each with a visible focus."""
    page = open_page()
    page.keyboard.press("Tab")
    reached = []
    while (name := page.evaluate("document.activeElement.textContent.trim()")) not in reached:
        if page.evaluate("document.activeElement === document.body"):
            break
        reached.append(name)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        page.keyboard.press("Tab")
    assert reached == ["Picture", *DIGITS]
    page.get_by_role("button", name="Draw a 4").focus()
    page.keyboard.press("Enter")
    answered(page, "4")
    page.keyboard.press("Escape")
    expect(page.locator("#label")).to_have_text("?")


def test_nothing_moves_for_who_wants_no_motion(open_page):
    """Examples appear at once, and bars do not move."""
    page = open_page(reduced_motion="reduce")
    page.get_by_role("button", name="Draw a 2").click()
    answered(page, "2")
    assert page.evaluate("getComputedStyle(document.querySelector('.fill')).transitionDuration") == "0s"


def test_many_labels_show_the_likeliest(open_page):
    """A thousand labels do not give a thousand bars."""
    page = open_page()
    shown = page.evaluate("""async () => {
        const { Bars } = await import("/page/bars.js");
        const list = document.createElement("ol");
        const bars = new Bars(list, Array.from({ length: 1000 }, (_, index) => `class ${index}`));
        bars.show([[7, 0.9], [3, 0.05]].map(([index, probability]) => (
            { label: `class ${index}`, index, probability })));
        return [bars.count, [...list.children].map((row) => row.innerText || row.textContent).slice(0, 3)];
    }""")
    assert shown == [10, ["class 790.0%", "class 35.0%", ""]]
